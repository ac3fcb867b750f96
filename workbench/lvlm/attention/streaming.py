"""Streaming with attention sinks (arXiv 2309.17453): a row sees the first tokens and the last.

S-Attn with a mask: row t sees keys t − window + 1 … t and the first ``sinks`` tokens. Positions in
prefill and training are the tokens' own. A decode step's cache has the sinks and the last
window − 1 tokens, keys un-rotated: they are rotated at their places 0, 1, … in the cache, all at
each step (M-RoPE: its three rows alike). O(V·window) pairs; the kernels compute all V² under the
mask, but ``flex``. With ``banded=1`` ``eager`` and ``sdpa`` compute a band of them: chunks of
``window`` rows meet their own keys, those of the chunk before and the sinks. A decode step is O(1)
in |V|. No parameters. Gives up: it forgets. With the image first, text beyond the window sees four
visual tokens: a baseline for live video, not for questions about all of it.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS, System
from workbench.lvlm.attention.costs import Cached, Pairs
from workbench.lvlm.attention.decomposed import joined
from workbench.lvlm.attention.row_inputs import NOTHING, RowInputs
from workbench.lvlm.attention.s_attn import SAttn, SAttnLayer
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Band, Branch, Kernel, Scores
from workbench.lvlm.layout import (
    Chunk,
    Layout,
    causal_pairs,
    first_seen,
    sight_end,
    without_first,
    word_of,
)
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.vocabulary.errors import Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


class StreamingDecode(nn.Module):
    """One token over a cache of un-rotated keys, whose positions are places in the cache."""

    keys: Tensor
    values: Tensor

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__()
        self.layer, self.parts, self.kernel = parts.layer, parts, context.kernel
        cached = system.cached(place, parts.window)
        hidden = system.hidden(place, parts.window)
        count, self.hidden = cached.visual + cached.text, hidden.visual + hidden.text
        self.tables = context.cache_rope(place.index, count + 1)
        self.factor = context.query_factor(place.index, "cache", count)
        self.scores = Scores(parts.scale, parts.softcap, causal=False)
        if not parts.takes_keys:
            for name in ("keys", "values"):
                self.register_buffer(name, context.cache(parts, count, name), persistent=False)

    def forward(self, token: Tensor, more: RowInputs = NOTHING) -> tuple[Tensor]:
        """[B, 1, D] -> [B, 1, D]."""
        parts, x = self.parts, self.parts.input_norm(token)
        query, gate = parts.query_and_gate(x, self.factor)
        entries = None if "sequence" in more.taken else parts.entries(x)
        with region("attention"):
            cos, sin = self.tables
            query = parts.rope(query, cos[..., -1:, :], sin[..., -1:, :])
            if entries is not None:
                keys, values = parts.rotate(joined((self.keys, self.values), entries), cos, sin)
                entries = without_first(keys, self.hidden), without_first(values, self.hidden)
        key, value = more.keys_of("sequence", parts, entries)
        with region("attention"):
            attended = self.kernel.own(Branch(query, key, value), self.scores)
        own = more.own.get("sequence")
        return (parts.finish(token, parts.output(attended, gate), x, own),)


def first_sees(rows: int, window: int, sinks: int) -> Tensor:
    """Which keys each of the first rows sees, bool [rows, rows]."""
    at = torch.arange(rows)
    distance = at[:, None] - at
    return (distance >= 0) & ((distance < window) | (at < sinks))


def chunk_sees(window: int, sinks: int) -> Tensor:
    """Which keys the rows of a chunk see: the sinks, the chunk before and their own.

    bool [window, sinks + 2·window].
    """
    at = torch.arange(2 * window)
    distance = at[window:, None] - at
    return torch.cat(((torch.ones(window, sinks) > 0), (distance >= 0) & (distance < window)), 1)


class Chunks(NamedTuple):
    """The rows of a sequence, in order: the first, whole chunks of a window's rows, and a rest."""

    first: int
    """Rows up to which the chunk before still holds sinks; they meet each other."""
    whole: int
    """Chunks."""
    rest: int
    """Rows."""

    def pairs(self, window: int, sinks: int) -> int:
        """Query-key pairs that are computed."""
        keys = sinks + window
        middle = self.whole * window * (keys + window)
        return self.first**2 + middle + self.rest * (keys + self.rest)


class BandedLayer(nn.Module):
    """S-Attn's layer over a band of pairs. Exact up to the order of sums."""

    def __init__(
        self,
        system: "Streaming",
        parts: "LayerParts",
        context: Context,
        place: Place,
        chunks: Chunks,
    ) -> None:
        super().__init__()
        self.layer, self.parts = parts.layer, context.in_tiles(parts)
        self.kernel, self.chunks = context.kernel, chunks
        self.window, self.sinks = system.window, system.sinks
        self.tables = context.rope(place.index, "sequence")
        self.factor = context.query_factor(place.index, "sequence")
        self.scores = Scores(parts.scale, parts.softcap, causal=False)
        band = self.window, self.sinks
        self.first_sees = context.constant(
            ("first of a band", chunks.first, *band), lambda: first_sees(chunks.first, *band)
        )
        self.sees = context.constant(("chunk of a band", *band), lambda: chunk_sees(*band))

    def forward(self, sequence: Tensor, more: RowInputs = NOTHING) -> tuple[Tensor]:
        """[B, S, D] -> [B, S, D]."""
        parts, x = self.parts, self.parts.input_norm(sequence)
        query, gate = parts.query_and_gate(x, self.factor)
        taken = more.taken.get("sequence")
        key, value = taken or parts.key_value(x)
        with region("attention"):
            query = parts.rope(query, *self.tables)
            if taken is None:
                key = parts.rope(key, *self.tables)
                more.give("sequence", key, value)
            attended = self.attend(query, key, value)
        own = more.own.get("sequence")
        return (parts.finish(sequence, parts.output(attended, gate), x, own),)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, S, K], k and v [B, G, S, K] -> [B, H, S, K]."""
        first, whole, rest = self.chunks
        start, end = first, first + whole * self.window
        outs = [self._masked(q[:, :, :first], k[:, :, :first], v[:, :, :first], self.first_sees)]
        if whole:
            keys, values = (self._by_chunk(x, start, end) for x in (k, v))
            rows = self._split(q[:, :, start:end])
            out = self._masked(rows.flatten(0, 1), keys, values, self.sees)
            outs.append(out.unflatten(0, rows.shape[:2]).transpose(1, 2).flatten(2, 3))
        if rest:
            keys, values = (
                torch.cat((x[:, :, : self.sinks], x[:, :, end - self.window :]), 2) for x in (k, v)
            )
            sees = self.sees[:rest, : self.sinks + self.window + rest]
            outs.append(self._masked(q[:, :, end:], keys, values, sees))
        return torch.cat(outs, 2)

    def _masked(self, q: Tensor, k: Tensor, v: Tensor, sees: Tensor) -> Tensor:
        return self.kernel.masked(Branch(q, k, v), sees, self.scores)

    def _split(self, x: Tensor) -> Tensor:
        """[B, H, n·window, K] -> [B, n, H, window, K]."""
        return x.unflatten(2, (-1, self.window)).transpose(1, 2)

    def _by_chunk(self, x: Tensor, start: int, end: int) -> Tensor:
        """What each chunk meets, [B·n, G, sinks + 2·window, K], of [B, G, S, K]."""
        own, before = (
            self._split(x[:, :, start - shift : end - shift]) for shift in (0, self.window)
        )
        sinks = x[:, None, :, : self.sinks].expand(-1, own.shape[1], -1, -1, -1)
        return torch.cat((sinks, before, own), 3).flatten(0, 1)


class Streaming(SAttn):
    name = "streaming"
    lacks = ""
    keeps_cache = False
    mixes = True

    @property
    def sinks(self) -> int:
        return int(self.settings["sinks"])

    @property
    def window(self) -> int:
        return int(self.settings["window"])

    def chunks(self, layout: Layout) -> Chunks | None:
        """How rows are computed in chunks; None where all meet all, under the mask."""
        first = self.window * (-(-self.sinks // self.window) + 1)
        if not self.settings["banded"] or layout.length <= first:
            return None
        return Chunks(first, *divmod(layout.length - first, self.window))

    def band(self, layout: Layout) -> Band | None:
        """What the mask has beside causality; None where it hides nothing."""
        return Band(self.window, self.sinks) if self._hides(layout) else None

    def _hides(self, layout: Layout) -> bool:
        return self.sinks + self.window < layout.length

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        if context.cell.pass_ == "decode":
            context.kernel.check(parts, True, False)  # Its call is of a branch, not of a layer.
            return StreamingDecode(self, parts, context, place)
        band = self.band(place.layout)
        if band is not None and not context.kernel.takes_mask:
            raise Unsupported(
                f"{self.name} needs a mask (a window has no sinks), which kernel "
                f"{context.kernel.name!r} does not take; use eager, sdpa or flex"
            )
        chunks = self.chunks(place.layout)
        if chunks is not None:
            self._check_banded(parts, context, place)
            return BandedLayer(self, parts, context, place, chunks)
        layer = SAttnLayer(parts, context, place)
        layer.mask = context.mask(place.layout.length, parts.window, band)
        return layer

    def _check_banded(self, parts: "LayerParts", context: Context, place: Place) -> None:
        """Raise Unsupported where a band of pairs cannot be computed."""
        if not context.kernel.takes_rows:
            raise Unsupported(
                f"{self.name}: banded=1 is for kernels that take any mask, eager and sdpa; "
                f"{context.kernel.name!r} computes no more than the blocks in sight without it"
            )
        if self.window_bites(place, parts.window):
            raise Unsupported(
                f"{self.name}: banded=1 has no place for the {word_of(parts.window)} of "
                f"{parts.attention.config.model_type} ({parts.window} tokens), which hides sinks "
                "from late rows; use banded=0"
            )

    def skips(self, kernel: Kernel, place: Place, window: int | None) -> bool:
        hides = self._hides(place.layout) or self.window_bites(place, window)
        return kernel.skips(hides)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        n = place.layout.length
        if not self._hides(place.layout):
            return super().pairs(place, window)
        ends = (n if window is None else sight_end(s, window) for s in range(min(self.sinks, n)))
        # A sink is seen by the rows beyond the window of recent tokens, up to the family's own.
        beyond = sum(max(0, min(n, end) - (s + self.window)) for s, end in enumerate(ends))
        chunks = self.chunks(place.layout)
        computed = n * n if chunks is None else chunks.pairs(self.window, self.sinks)
        return Pairs(computed, self._recent_pairs(n, window) + beyond)

    def _recent_pairs(self, rows: int, window: int | None) -> int:
        """Pairs inside the window of recent tokens and inside the family's own."""
        if isinstance(window, Chunk) and window > self.window:
            whole, rest = divmod(rows, window)
            return whole * causal_pairs(window, self.window) + causal_pairs(rest, self.window)
        return causal_pairs(rows, self.window if window is None else min(window, self.window))

    def cached(self, place: Place, window: int | None) -> Cached:
        if self.sinks + self.window > place.layout.length:
            return super().cached(place, window)
        return self._held(place.layout, window, place.layout.length)

    def hidden(self, place: Place, window: int | None) -> Cached:
        layout = place.layout
        if self.sinks + self.window > layout.length or not isinstance(window, Chunk):
            return super().hidden(place, window)
        return self._held(layout, window, first_seen(layout.length, window))

    def _held(self, layout: Layout, window: int | None, stop: int) -> Cached:
        """What a cache that forgot some tokens has of those before an index."""
        end = layout.length
        recent = end + 1 - (self.window if window is None else min(self.window, window))
        oldest = 0 if window is None else max(0, end + 1 - window)
        sinks = range(min(oldest, recent), min(self.sinks, recent, stop))
        counts = (
            layout.num_between(visual, recent, stop)
            + layout.num_between(visual, sinks.start, sinks.stop)
            for visual in (True, False)
        )
        return Cached(*counts)


SYSTEMS.add("streaming", Streaming())
