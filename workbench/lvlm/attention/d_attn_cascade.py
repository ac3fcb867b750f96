"""D-Attn with a cross-attention module of its own, then self-attention (Table 3, Cascade).

The module has q, k, v and o of the layer's sizes and no norm: 41,943,040 parameters a Mistral
layer, the paper's 1.4 B in all. Its input is the layer's own input norm; its output joins the
residual (after the family's post-attention norm, where it has one) before self-attention reads the
text again. Visual tokens are D-Attn's: their own value, residual and MLP. O(V), D-Attn's cost and
the module's q and W_o for text, its k and v for all. It gives up V2V and needs training.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS, System
from workbench.lvlm.attention.costs import Cached, token_flops
from workbench.lvlm.attention.decomposed import Decomposed, DecomposedLayer
from workbench.lvlm.attention.pairs import text_prefixes
from workbench.lvlm.attention.row_inputs import RowInputs
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.lvlm.weights.random import randomise
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


class CrossAttention(nn.Module):
    """The decoupled module's projections."""

    def __init__(self, parts: "LayerParts") -> None:
        super().__init__()
        wide = parts.num_heads * parts.head_dim
        narrow = parts.num_kv_heads * parts.head_dim
        self.q_proj = nn.Linear(parts.hidden_size, wide, bias=False)
        self.k_proj = nn.Linear(parts.hidden_size, narrow, bias=False)
        self.v_proj = nn.Linear(parts.hidden_size, narrow, bias=False)
        self.o_proj = nn.Linear(wide, parts.hidden_size, bias=False)


class CascadeLayer(DecomposedLayer):
    """Text: cross-attention, residual, self-attention, residual, MLP.

    The module makes keys and values of its own in every layer; of another layer's a layer may take
    the visual values, for the diagonal, and keys and values of text.
    """

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        self.cross = context.create(lambda: CrossAttention(parts))
        randomise(self.cross)

    def cached_visual(self, more: RowInputs) -> tuple[Tensor | None, Tensor | None]:
        return self.visual_keys, self.visual_values

    def visual_stream(self, visual: Tensor, more: RowInputs) -> tuple[Tensor, Tensor, Tensor]:
        taken = more.taken.get("visual", ())
        visual, key, value, *own_value = self.by_token(visual, more, *taken)
        if own_value:
            more.give("visual", *own_value)
        return visual, key, value

    def _tokens(
        self, visual: Tensor, own: Tensor | None = None, taken: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """As D-Attn's, with the module's key and value, and the value that later layers take."""
        parts, x = self.visual_parts, self.parts.input_norm(visual)
        shape = (parts.num_kv_heads, parts.head_dim)
        with region("projections"):
            key = self.cross.k_proj(x).unflatten(-1, shape)
            value = self.cross.v_proj(x).unflatten(-1, shape)
        gives = parts.gives_keys
        if taken is None and (gives or not self.only_keys):
            taken = parts.value(x).transpose(1, 2)
        if taken is not None and not self.only_keys:
            visual = parts.finish(visual, self.diagonal(taken, x), x, own)
        return (visual, key, value, taken) if gives and taken is not None else (visual, key, value)

    def text_stream(
        self,
        text: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        more: RowInputs,
        *latents: Tensor,
    ) -> Tensor:
        parts = self.parts
        if key is not None and value is not None and self.prefixes:
            with region("projections"):
                q = self.cross.q_proj(parts.input_norm(text))
            q_bhtk = q.unflatten(-1, (parts.num_heads, parts.head_dim)).transpose(1, 2)
            branch = Branch(q_bhtk, key, value, "T2V")
            with region(branch.region):
                partial = self.kernel.cross(branch, self.prefixes, self.scores)
            with region("projections"):
                out = self.cross.o_proj(partial.transpose(1, 2).flatten(2))
            if parts.post_attention_norm is not None:
                out = parts.post_attention_norm(out)
            text = text + out
        return super().text_stream(text, None, None, more)


class DAttnCascade(Decomposed):
    name = "d_attn_cascade"
    projections = "the projections of a cross-attention of its own"
    layer_class = CascadeLayer
    own_keys = ("visual",)

    def visual_handed(self, cell: Cell) -> int:
        return 0 if cell.pass_ == "decode" else 1

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        narrow, wide = (
            2 * parts.hidden_size * heads * parts.head_dim
            for heads in (parts.num_kv_heads, parts.num_heads)
        )
        # The visual stream still needs its own v for the diagonal, but no k of its own.
        value = not parts.takes_keys and (parts.gives_keys or not place.keys_only)
        visual = (2 + value - parts.kv_projections) * narrow * place.layout.num_visual
        text = 2 * wide * place.layout.num_text if text_prefixes(place.layout) else 0
        return super().linear_flops(parts, place, cell) + cell.batch * (visual + text)

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        wide = 2 * parts.hidden_size * parts.num_heads * parts.head_dim
        return token_flops(parts) + (2 * wide if cached.visual else 0)

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        heads = 2 * parts.num_heads + 2 * parts.num_kv_heads
        return parts.hidden_size * parts.head_dim * heads


SYSTEMS.add("d_attn_cascade", DAttnCascade())
