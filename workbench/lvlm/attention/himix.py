"""HiMix (arXiv 2501.10318): only text goes through the decoder.

Visual embeddings keep the encoder's width and are never updated. Each layer norms them and
projects keys and values of its own; text queries (RoPE on text q and k only) attend to [K_v ; K_t]
in one softmax.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS, System, token_flops
from workbench.lvlm.attention.decomposed import Decomposed, DecomposedLayer
from workbench.lvlm.chunked import token_chunks
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch
from workbench.lvlm.marks import part
from workbench.lvlm.place import Place
from workbench.lvlm.weights import randomise
from workbench.spec import Cell

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts

ENCODER_WIDTH = 1152
"""Of SigLIP so400m (config.json of google/siglip-so400m-patch14-384, hidden_size)."""


class HiMixLayer(DecomposedLayer):
    """Text alone is updated; the visual state passes through unchanged."""

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        narrow = parts.num_kv_heads * parts.head_dim
        self.norm_img = context.create(lambda: nn.RMSNorm(ENCODER_WIDTH, eps=1e-6))
        self.k_proj_img = context.create(lambda: nn.Linear(ENCODER_WIDTH, narrow, bias=False))
        self.v_proj_img = context.create(lambda: nn.Linear(ENCODER_WIDTH, narrow, bias=False))
        for module in (self.norm_img, self.k_proj_img, self.v_proj_img):
            randomise(module)

    def visual_stream(self, visual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.chunk is None or visual.shape[1] <= self.chunk:
            key, value = self._keys(visual)
        else:
            modules = (self.norm_img, self.k_proj_img, self.v_proj_img)
            weights = [w for module in modules for w in module.parameters()]
            key, value = token_chunks(self._keys, self.chunk, [visual], weights)
        return visual, key.transpose(1, 2), value.transpose(1, 2)

    def _keys(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        with part("norms"):
            x = self.norm_img(visual)
        with part("projections"):
            shape = (self.parts.num_kv_heads, self.parts.head_dim)
            return self.k_proj_img(x).unflatten(-1, shape), self.v_proj_img(x).unflatten(-1, shape)

    def other(self, q: Tensor, q_rope: Tensor, key: Tensor, value: Tensor) -> Branch:
        return Branch(q_rope, key, value, "T2V")


class HiMix(Decomposed):
    name = "himix"
    options = ("chunk",)
    adapter = False
    shared_states = 1
    layer_class = HiMixLayer

    def visual_width(self, parts: "LayerParts") -> int:
        return ENCODER_WIDTH

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        layout = place.layout
        text = cell.batch * layout.num_text * token_flops(parts)
        narrow = parts.num_kv_heads * parts.head_dim
        return text + cell.batch * layout.num_visual * 2 * ENCODER_WIDTH * 2 * narrow

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        return ENCODER_WIDTH * (1 + 2 * parts.num_kv_heads * parts.head_dim)


SYSTEMS.add("himix", HiMix())
