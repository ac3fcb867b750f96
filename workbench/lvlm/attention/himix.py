"""HiMix (arXiv 2501.10318): only text goes through the decoder.

Visual embeddings keep the encoder's width and are never updated. Each layer norms them and
projects keys and values of its own; text queries (RoPE on text q and k only) attend to [K_v ; K_t]
in one softmax. No visual token is a query, has an MLP or changes from layer to layer. O(V), and of
a token a layer keeps no more than the two small projections: the smallest slope of the systems in
which every layer sees every visual token. It gives up V2V and every update of the visual tokens,
and needs training.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS, System
from workbench.lvlm.attention.kept import ENCODER_WIDTH, Kept, KeptLayer
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.lvlm.weights.random import randomise
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


class HiMixLayer(KeptLayer):
    """Keys and values of projections of its own."""

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        narrow = parts.num_kv_heads * parts.head_dim
        self.norm_img = context.create(lambda: nn.RMSNorm(ENCODER_WIDTH, eps=1e-6))
        self.k_proj_img = context.create(lambda: nn.Linear(ENCODER_WIDTH, narrow, bias=False))
        self.v_proj_img = context.create(lambda: nn.Linear(ENCODER_WIDTH, narrow, bias=False))
        for module in self.key_modules():
            randomise(module)

    def key_modules(self) -> tuple[nn.Module, ...]:
        return self.norm_img, self.k_proj_img, self.v_proj_img

    def keys(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        with region("norms"):
            x = self.norm_img(visual)
        with region("projections"):
            shape = (self.parts.num_kv_heads, self.parts.head_dim)
            return self.k_proj_img(x).unflatten(-1, shape), self.v_proj_img(x).unflatten(-1, shape)

    def other(self, q: Tensor, q_rope: Tensor, key: Tensor, value: Tensor) -> Branch:
        return Branch(q_rope, key, value, "T2V")


class HiMix(Kept):
    name = "himix"
    projections = "k_proj_img and v_proj_img"
    layer_class = HiMixLayer
    own_keys = ("visual",)

    def visual_handed(self, cell: Cell) -> int:
        return 0

    def key_flops(self, parts: "LayerParts") -> int:
        return 2 * ENCODER_WIDTH * 2 * parts.num_kv_heads * parts.head_dim

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        return ENCODER_WIDTH * (1 + 2 * parts.num_kv_heads * parts.head_dim)


SYSTEMS.add("himix", HiMix())
