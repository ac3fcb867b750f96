"""S-Attn of a family that reads its images by cross-attention layers of its own (Mllama).

Only text is in the sequence, at positions of its own. The layers are transformers', untouched: of
self-attention over text, and of cross-attention from text rows to the visual embeddings, which
nothing updates. A text row sees the images right before its segment, as transformers' processor
masks them; one before the first image attends to all, and only its MLP is left out: so does
transformers' mask.
"""

from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from workbench.lvlm.attention.costs import Cached, Pairs, token_flops
from workbench.lvlm.attention.reading import TextCosts
from workbench.lvlm.context import TILE, Context
from workbench.lvlm.layout import Layout, causal_pairs
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Faults, Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.kernels import Kernel
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts

CROSS = "cross"
"""The role of a layer that reads the images."""


class OwnText(nn.Module):
    """A layer of self-attention over text alone."""

    keys: Tensor
    values: Tensor

    def __init__(self, parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.layer: Any = parts.layer
        text = place.layout.num_text
        self.decode = context.cell.pass_ == "decode"
        if self.decode:
            cos, sin = context.cache_rope(place.index, text + 1)
            self.tables = cos[:, -1:], sin[:, -1:]
            for name in ("keys", "values"):
                self.register_buffer(name, context.cache(parts, text, name), persistent=False)
            return
        self.tables = context.cache_rope(place.index, text)
        self.mask, self.kept = context.mask(text, None), context.kept_cache()
        if context.cell.tiled:
            parts.tile(TILE)

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        """[B, V, D], [B, T, D] -> the same shapes; the text alone [B, 1, D] in a decode step."""
        *visual, text = state
        if not text.shape[1]:
            return state
        return (*visual, self.layer(text, position_embeddings=self.tables, **self._arguments()))

    def _arguments(self) -> dict[str, Any]:
        from workbench.lvlm.caches.held import HeldCache, KeptCache

        if self.decode:
            return {"attention_mask": None, "past_key_values": HeldCache(self.keys, self.values)}
        if self.kept is None:
            return {"attention_mask": self.mask}
        cache = KeptCache(None, self.kept, None, 0)
        return {"attention_mask": self.mask, "past_key_values": cache}


class OwnCross(nn.Module):
    """A layer of cross-attention from text to the visual embeddings."""

    keys: Tensor
    values: Tensor

    def __init__(self, parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.layer: Any = parts.layer
        self.number, layout = parts.attention.layer_idx, place.layout
        self.num_visual = layout.num_visual
        self.decode = context.cell.pass_ == "decode"
        mask = context.constant("own cross: seen", lambda: masks(layout, context)[0])
        rows = context.constant("own cross: rows", lambda: masks(layout, context)[1])
        if self.decode:
            mask, rows = mask[:, :, -1:], rows[:, :, -1:]
            for name in ("keys", "values"):
                cache = context.cache(parts, self.num_visual, name)
                self.register_buffer(name, cache, persistent=False)
        else:
            self.kept = context.kept_cache()
            if context.cell.tiled:
                parts.tile(TILE)
        self.seen, self.rows = mask, rows

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        """[B, V, D], [B, T, D] -> the same shapes; the text alone [B, 1, D] in a decode step."""
        *visual, text = state
        if not self.num_visual or not text.shape[1]:
            return state  # As transformers passes the layer by.
        hidden = self.layer(
            text,
            cross_attention_mask=self.seen,
            full_text_row_masked_out_mask=self.rows,
            attention_mask=None,
            **self._arguments(visual),
        )
        return (*visual, hidden)

    def _arguments(self, visual: list[Tensor]) -> dict[str, Any]:
        from workbench.lvlm.caches.held import KeptCache

        if self.decode:
            layers = {self.number: SimpleNamespace(keys=self.keys, values=self.values)}
            return {
                "cross_attention_states": None,
                "past_key_values": SimpleNamespace(layers=layers),
            }
        cache = None if self.kept is None else KeptCache(None, self.kept, None, 0)
        return {"cross_attention_states": visual[0], "past_key_values": cache}


def masks(layout: Layout, context: Context) -> tuple[Tensor, Tensor]:
    """transformers' two: additive [1, 1, T, V], and 1 for each row that sees an image."""
    sees = torch.zeros(max(1, layout.num_text), layout.num_visual, dtype=torch.bool)
    for sight in sights(layout):
        sees[sight.start : sight.stop, sight.first : sight.last] = True
    rows = sees.any(1, keepdim=True).to(context.dtype)
    lowest = torch.finfo(context.dtype).min
    mask = torch.zeros(sees.shape, dtype=context.dtype).masked_fill_(~sees, lowest) * rows
    return mask[None, None], rows[None, None]


class Sight(NamedTuple):
    """A run of text rows, by their places in the text, and the visual tokens that they see."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def pairs(self) -> int:
        return (self.stop - self.start) * (self.last - self.first)


def sights(layout: Layout) -> list[Sight]:
    """What each text segment after images sees: those right before it.

    Images between which stands one row, the first image's own token, are seen together after them.
    """
    sights: list[Sight] = []
    first = last = between = 0
    for segment in layout.segments:
        stop = segment.offset + segment.length
        if segment.visual:
            if between > 1 or not last:
                first = segment.offset
            last, between = stop, 0
        else:
            between = segment.length
            if last:
                sights.append(Sight(segment.offset, stop, first, last))
    return sights


class OwnCrossLayers(TextCosts):
    name = "s_attn"
    decomposed = False
    options = ("tiled",)
    keeps_cache = True
    text_only = True

    def __init__(self, layers: frozenset[int]) -> None:
        self.layers = layers

    def check(self, cell: Cell) -> None:
        faults = Faults()
        with faults:
            super().check(cell)
        if cell.cache_dtype is not None:
            faults.add(
                f"cache_dtype {cell.cache_dtype}: no kernel here reads such a cache of the "
                f"layers of {cell.model} that read the images; leave it out"
            )
        for field, default in (("loss_rows", "text"), ("ulysses", 1), ("ring", 1)):
            if getattr(cell, field) != default:
                faults.add(
                    f"{field} {getattr(cell, field)}: only text is in the sequence of {cell.model}"
                    f", whose layers read the images; use {default}"
                )
        faults.raise_all()

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        count = model.config.num_hidden_layers
        return tuple(Place(i, layout, CROSS if i in self.layers else "") for i in range(count))

    def reads_visual(self, place: Place) -> bool:
        return place.role == CROSS

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        kernel = context.kernel
        if not kernel.takes_mask or kernel.hf not in ("eager", "sdpa"):
            raise Unsupported(
                f"kernel {kernel.name!r} takes no mask of images, which the cross-attention of "
                f"{parts.attention.config.model_type} needs; use sdpa, efficient, math or eager"
            )
        kind = OwnCross if place.role == CROSS else OwnText
        return kind(parts, context, place)

    def entering(self, parts: "LayerParts", place: Place) -> list[tuple[int, int]]:
        layout = place.layout
        return [(n, parts.hidden_size) for n in (layout.num_visual, layout.num_text)]

    def pairs(self, place: Place, window: int | None) -> Pairs:
        layout = place.layout
        if place.role != CROSS:
            return Pairs(layout.num_text**2, causal_pairs(layout.num_text))
        seen_by = sights(layout)
        blind = layout.num_text - sum(sight.stop - sight.start for sight in seen_by)
        cross = sum(sight.pairs for sight in seen_by) + blind * layout.num_visual
        return Pairs(layout.num_text * layout.num_visual, cross)

    def skipped_share(self, kernel: "Kernel", place: Place, window: int | None) -> Fraction:
        # A cross-attention layer is handed an explicit mask, under which all pairs are computed.
        return Fraction(place.role != CROSS and kernel.skips(False))

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        if place.role != CROSS:
            return super().linear_flops(parts, place, cell)
        visual, text = place.layout.num_visual, place.layout.num_text
        if not visual or not text:
            return 0
        keys = visual * token_flops(parts, q=False, rest=False)
        return cell.batch * (keys + text * token_flops(parts, kv=False))

    def cached(self, place: Place, window: int | None) -> Cached:
        if place.role == CROSS:
            return Cached(place.layout.num_visual, 0)
        return Cached(0, place.layout.num_text)

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        if place.role != CROSS:
            return token_flops(parts)
        return token_flops(parts, kv=False) if cached.visual else 0

    def decode_pairs(self, place: Place, cached: Cached) -> int:
        return cached.visual if place.role == CROSS else cached.text + 1
