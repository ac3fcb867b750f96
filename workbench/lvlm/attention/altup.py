"""S-Attn of a family whose tokens have several hidden states between layers (Gemma 3n).

The layers are transformers', untouched. A state is, in this order: the embeddings for every layer
[B, S, L, P], keys and values [B, G, S, K] of each layer so far whose later layers share them, and
the streams of hidden states [A, B, S, D]. A layer changes the streams alone; one that others share
adds its keys and values.

The batched matmul of AltUp multiplies each token's streams with coefficients of its own: it is no
query-key pairs, and FLOPs of pairs leave it out.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from workbench.lvlm.attention import token_flops
from workbench.lvlm.attention.s_attn import SAttn, SAttnDecode, SAttnLayer
from workbench.lvlm.context import Context
from workbench.lvlm.layout import Layout
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.attention import Cached
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts

GIVES, TAKES = "gives keys", "takes keys"
"""Roles of layers whose keys and values later ones share, and of those that have none."""
ROLES = {"store": GIVES, "reuse": TAKES, None: ""}
"""By transformers' word for what a layer does with its keys and values."""


class Mixed(nn.Module):
    """Around a layer of S-Attn: its state in, and what of it the layer takes.

    A layer ``alone`` has the embeddings for itself and the keys and values that it takes, and
    gives its streams, and its keys and values where others share them.
    """

    def __init__(self, inner: Any, parts: "LayerParts", place: Place, alone: bool) -> None:
        super().__init__()
        self.inner, self.role, self.alone = inner, place.role, alone
        self.number = 0 if alone else place.index
        """Of its own among the embeddings for layers."""
        config, self.kind = parts.attention.config, parts.attention.layer_type
        modes = config.kv_sharing_modes[: place.index]
        self.kinds = [config.layer_types[i] for i, mode in enumerate(modes) if mode == "store"]
        """Of the layers so far whose keys and values are in the state."""
        if alone:
            self.kinds = [self.kind] if self.role == TAKES else []

    def forward(self, per_layer: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """A state -> the next layer's."""
        *keys_values, streams = rest
        pairs = zip(keys_values[::2], keys_values[1::2], strict=True)
        shared = dict(zip(self.kinds, pairs, strict=True))
        streams = self.inner.layer(
            streams,
            per_layer_input=per_layer[:, :, self.number],
            shared_kv_states=shared,
            **self.inner.arguments(),
        )
        own = shared[self.kind] if self.role == GIVES else ()
        return (*own, streams) if self.alone else (per_layer, *keys_values, *own, streams)


class Taking(nn.Module):
    """A decode step of a layer that takes keys and values: it has no cache of its own."""

    def __init__(self, parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.layer: Any = parts.layer
        self.tables = context.positions_given(place.index, "next")

    def arguments(self) -> dict[str, Any]:
        """What the layer is given beside hidden states."""
        return {"attention_mask": None, "position_embeddings": self.tables}


class AltUpLayers(SAttn):
    """Costs of S-Attn on such a family: of AltUp, LAuReL and the embeddings for each layer too."""

    shared_states = -1
    stacks = False

    def check(self, cell: Cell) -> None:
        super().check(cell)
        for field in ("ulysses", "ring"):
            if getattr(cell, field) > 1:
                raise RequestError(
                    f"{field} {getattr(cell, field)}: last layers of {cell.model} share keys and "
                    "values of others, which ranks that share a sequence do not pass on; use 1"
                )

        if cell.weights_dtype is not None and cell.pass_ == "train":
            raise RequestError(
                f"weights_dtype {cell.weights_dtype}: while {cell.model} trains, AltUp clips its "
                "matrices of coefficients where they lie, which codes do not let it; leave it out"
            )

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        modes = model.config.kv_sharing_modes
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
        config: Any = parts.attention.config
        decode = cell.pass_ == "decode"
        tokens = 1 if decode else place.layout.length
        cached = self.cached(place, parts.window)
        length = cached.visual + cached.text + 1 if decode else tokens
        keys = [(cell.batch, parts.num_kv_heads, length, parts.head_dim)] * 2
        streams = (config.altup_num_inputs, cell.batch, tokens, parts.hidden_size)
        own = (cell.batch, tokens, 1, config.hidden_size_per_layer_input)
        before, after = (keys if place.role == role else [] for role in (TAKES, GIVES))
        return [own, *before, streams], [*after, streams]

    def rows(self, state: tuple[Tensor, ...], layout: Layout, text_rows: Tensor | None) -> Tensor:
        """Streams [A, B, n, D] of the rows that reach the LM head."""
        return state[-1] if text_rows is None else state[-1][:, :, text_rows]

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        tokens = cell.batch * place.layout.length
        return tokens * (token_flops(parts) + more_flops(parts))

    def weightless_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> tuple[int, int]:
        mixing = cell.batch * place.layout.length * mixing_flops(parts)
        return mixing, 2 * mixing

    def token_flops(self, parts: "LayerParts", place: Place, cached: "Cached") -> int:
        return token_flops(parts) + more_flops(parts)

    def cache_elements(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        return 0 if place.role == TAKES else super().cache_elements(parts, place, cell)


def mixing_flops(parts: "LayerParts") -> int:
    """Matmul FLOPs of a token's streams with its coefficients."""
    streams = parts.attention.config.altup_num_inputs
    return int(2 * parts.hidden_size * streams**2)


def more_flops(parts: "LayerParts") -> int:
    """Matmul FLOPs of a token in a layer outside attention and MLP."""
    config: Any = parts.attention.config
    d, streams = parts.hidden_size, config.altup_num_inputs
    routers = 2 * d * streams  # Before the layer, and after it.
    coefficients = streams**3 + streams**2
    beside = 2 * d * (config.laurel_rank + config.hidden_size_per_layer_input)
    return 2 * (routers + coefficients + beside) + mixing_flops(parts)
