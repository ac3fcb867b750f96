"""S-Attn of a family that gives every layer an embedding of each id (Gemma 3n, Gemma 4's E2B).

The layers are transformers', untouched. A state is, in this order: the embeddings for every layer
[B, S, L, P], keys and values [B, G, S, K] of each layer so far whose later layers share them, and
hidden states [B, S, D]. A layer changes the hidden states alone; one that others share adds its
keys and values.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from workbench.lvlm.attention.costs import token_flops
from workbench.lvlm.attention.s_attn import SAttn, SAttnDecode, SAttnLayer
from workbench.lvlm.context import Context
from workbench.lvlm.layout import Layout
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.attention.costs import Cached
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.models.around import Around
    from workbench.lvlm.parts import LayerParts

GIVES, TAKES = "gives keys", "takes keys"
"""Roles of layers whose keys and values later ones share, and of those that have none."""
ROLES = {"store": GIVES, "reuse": TAKES, None: ""}
"""By transformers' word for what a layer does with its keys and values."""


class Mixed(nn.Module):
    """Around a layer of S-Attn: its state in, and what of it the layer takes.

    A layer ``alone`` has the embeddings for itself and the keys and values that it takes, and
    gives its hidden states, and its keys and values where others share them.
    """

    def __init__(self, inner: Any, parts: "LayerParts", place: Place, alone: bool) -> None:
        super().__init__()
        self.inner, self.role, self.alone = inner, place.role, alone
        self.number = 0 if alone else place.index
        """Of its own among the embeddings for layers."""
        self.kind = parts.attention.layer_type
        self.kinds = kinds_given(parts, place)
        """Of the layers so far whose keys and values are in the state."""
        if alone:
            self.kinds = [self.kind] if self.role == TAKES else []

    def forward(self, per_layer: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """A state -> the next layer's."""
        *keys_values, hidden = rest
        pairs = zip(keys_values[::2], keys_values[1::2], strict=True)
        shared = dict(zip(self.kinds, pairs, strict=True))
        hidden = self.inner.layer(
            hidden,
            per_layer_input=per_layer[:, :, self.number],
            shared_kv_states=shared,
            **self.inner.arguments(),
        )
        own = shared[self.kind] if self.role == GIVES else ()
        return (*own, hidden) if self.alone else (per_layer, *keys_values, *own, hidden)


class Taking(nn.Module):
    """A decode step of a layer that takes keys and values: it has no cache of its own."""

    def __init__(self, parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.layer: Any = parts.layer
        self.tables = context.positions_given(place.index, "next")

    def arguments(self) -> dict[str, Any]:
        """What the layer is given beside hidden states."""
        return {"attention_mask": None, "position_embeddings": self.tables}


def kinds_given(parts: "LayerParts", place: Place) -> list[str]:
    """The kinds of the layers before this one whose keys and values later ones take, in order."""
    config = parts.attention.config
    modes = config.kv_sharing_modes[: place.index]
    return [config.layer_types[i] for i, mode in enumerate(modes) if mode == "store"]


def refuse_ranks(cell: Cell) -> None:
    """Raise RequestError where ranks would share a sequence."""
    for field in ("ulysses", "ring"):
        if getattr(cell, field) > 1:
            raise RequestError(
                f"{field} {getattr(cell, field)}: layers of {cell.model} hand on embeddings "
                "for every layer, or keys and values that others share, which ranks that "
                "share a sequence do not pass on; use 1"
            )


class PerLayer(SAttn):
    """Costs of S-Attn on such a family: of the embeddings for each layer too."""

    shared_states = -1
    stacks = False

    def check(self, cell: Cell) -> None:
        super().check(cell)
        refuse_ranks(cell)

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        config: Any = model.config
        modes = config.kv_sharing_modes
        return tuple(Place(i, layout, ROLES[mode]) for i, mode in enumerate(modes))

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        inner: type[nn.Module] = SAttnLayer
        if context.cell.pass_ == "decode":
            inner = Taking if place.role == TAKES else SAttnDecode
        alone = context.cell.scope == "layer"
        return Mixed(inner(parts, context, place), parts, place, alone)

    def layer_states(
        self, parts: "LayerParts", place: Place, cell: Cell
    ) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        decode = cell.pass_ == "decode"
        tokens = 1 if decode else place.layout.length
        cached = self.cached(place, parts.window)
        length = cached.visual + cached.text + 1 if decode else tokens
        keys = [(cell.batch, parts.num_kv_heads, length, parts.head_dim)] * 2
        hidden = self.hidden_shape(parts, cell.batch, tokens)
        own = (cell.batch, tokens, 1, parts.attention.config.hidden_size_per_layer_input)
        before, after = (keys if place.role == role else [] for role in (TAKES, GIVES))
        return [own, *before, hidden], [*after, hidden]

    def enter(
        self, around: "Around", state: tuple[Tensor, ...], ids: Tensor, layout: Layout | None
    ) -> tuple[Tensor, ...]:
        (sequence,) = state
        if layout is not None:
            visual = ids.new_full((ids.shape[0], layout.num_visual), around.visual_id)
            ids = layout.join(visual, ids)
        return around.enter(sequence, ids)

    def hidden_shape(self, parts: "LayerParts", batch: int, tokens: int) -> tuple[int, ...]:
        """Of the hidden states between layers."""
        return batch, tokens, parts.hidden_size

    def more_flops(self, parts: "LayerParts") -> int:
        """Matmul FLOPs of a token in a layer outside attention and MLP."""
        config: Any = parts.attention.config
        return int(4 * parts.hidden_size * config.hidden_size_per_layer_input)

    def rows(self, state: tuple[Tensor, ...], layout: Layout, text_rows: Tensor | None) -> Tensor:
        """Hidden states of the rows that reach the LM head; rows are the last axis but one."""
        return state[-1] if text_rows is None else state[-1][..., text_rows, :]

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        tokens = cell.batch * place.layout.length
        return tokens * (token_flops(parts) + self.more_flops(parts))

    def token_flops(self, parts: "LayerParts", place: Place, cached: "Cached") -> int:
        return token_flops(parts) + self.more_flops(parts)

    def cache_elements(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        return 0 if place.role == TAKES else super().cache_elements(parts, place, cell)
