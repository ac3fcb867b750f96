"""Attention systems by name: one file each, written once for every family on top of LayerParts.

A layer of a system maps a state to a state. The state of S-Attn is the sequence [B, S, D]; that of
a decomposed system is the visual stream [B, V, D] and the text stream [B, T, D].
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import RequestError
from workbench.lvlm.layout import Layout
from workbench.registry import Registry
from workbench.spec import Cell

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workbench.lvlm.context import Context
    from workbench.lvlm.parts import LayerParts

SYSTEMS: "Registry[System]" = Registry("attention system", __name__)

STREAM_OPTIONS = ("fold", "chunk", "skip_last", "tiled")
"""The cell options that only some systems have."""


@dataclass(frozen=True)
class Pairs:
    """Query-key pairs of one layer and one sample: computed (dense) and allowed by the mask."""

    dense: int
    allowed: int


@dataclass(frozen=True)
class Cached:
    """Tokens in one layer's cache that the next token sees, by stream."""

    visual: int
    text: int


class System:
    """One attention system. Subclasses say how a layer runs and what it costs."""

    name: str
    label: str
    decomposed = True
    options: tuple[str, ...] = ("fold", "chunk", "skip_last", "tiled")
    text_only = False
    """Whether visual tokens never enter the decoder (HiMix)."""

    def check(self, cell: Cell) -> None:
        """Raise RequestError for an option that this system does not have."""
        for option in STREAM_OPTIONS:
            if getattr(cell, option) and option not in self.options:
                raise RequestError(
                    f"{option}: {self.name} has no such option; it has "
                    f"{', '.join(self.options) or 'none of ' + ', '.join(STREAM_OPTIONS)}"
                )
            if getattr(cell, option) and cell.pass_ == "decode":
                raise RequestError(f"{option}: a decode step is one token and has no use for it")
        if cell.skip_last and cell.scope == "layer":
            raise RequestError("skip_last: a single layer has no last layer; use scope decoder")

    def role(self, index: int) -> str:
        """This system's word for what the layer of that index does; alike where it is the same.

        The closed forms find it in ``parts.role``.
        """
        return ""

    def layer(self, parts: "LayerParts", context: "Context", index: int) -> "nn.Module":
        """The layer of that index under this system: state -> state, real weights inside."""
        raise NotImplementedError

    def state(self, visual: "Tensor", text: "Tensor", layout: Layout) -> "tuple[Tensor, ...]":
        """The state that enters the first layer."""
        return visual, text

    def pairs(self, layout: Layout, window: int | None) -> Pairs:
        """Query-key pairs of one layer."""
        raise NotImplementedError

    def visual_width(self, parts: "LayerParts") -> int:
        """Width of a visual embedding that enters the first layer."""
        return parts.hidden_size

    def window_bites(self, layout: Layout, window: int | None) -> bool:
        """Whether the window hides a pair that causality would show."""
        return self.pairs(layout, window).allowed < self.pairs(layout, None).allowed

    def linear_flops(self, parts: "LayerParts", cell: Cell) -> int:
        """Matmul FLOPs of one forward outside the attention pairs, whole batch."""
        raise NotImplementedError

    def extra_parameters(self, parts: "LayerParts") -> int:
        """Parameters that one layer has beyond the family's own."""
        return 0

    def cached(self, layout: Layout, window: int | None) -> Cached:
        """Tokens whose keys and values one layer's cache holds after ``layout``."""
        return Cached(*(layout.num_last(visual, window) for visual in (True, False)))

    def token_flops(self, parts: "LayerParts", cached: Cached) -> int:
        """Matmul FLOPs of one decoded token of one sample outside the attention pairs."""
        return token_flops(parts)

    def forward_flops(self, parts: "LayerParts", cell: Cell) -> int:
        """Closed form of one layer's forward, dense: 2·m·n·k a matmul, 4·K·H a pair."""
        layout, per_pair = Layout.of(cell), 4 * parts.num_heads * parts.head_dim
        if cell.pass_ == "decode":
            cached = self.cached(layout, parts.window)
            pairs = cached.visual + cached.text + 1
            return cell.batch * (self.token_flops(parts, cached) + per_pair * pairs)
        pairs = self.pairs(layout, parts.window).dense
        return self.linear_flops(parts, cell) + cell.batch * per_pair * pairs

    def cache_elements(self, parts: "LayerParts", cell: Cell) -> int:
        """Elements of one layer's keys and values after all tokens of the cell, whole batch."""
        cached = self.cached(Layout.of(cell), parts.window)
        width = 2 * parts.num_kv_heads * parts.head_dim
        return cell.batch * width * (cached.visual + cached.text)


def token_flops(parts: "LayerParts", q: bool = True, kv: bool = True, rest: bool = True) -> int:
    """Matmul FLOPs of one token through q, k and v, and through W_o and the MLP."""
    d, wide, narrow = (
        parts.hidden_size,
        parts.num_heads * parts.head_dim,
        parts.num_kv_heads * parts.head_dim,
    )
    mlp = sum(w.numel() for w in parts.mlp.parameters() if w.ndim == 2)
    return 2 * (d * wide * q + 2 * d * narrow * kv + (wide * d + mlp) * rest)
