"""Streaming with attention sinks (arXiv 2309.17453): a row sees the first tokens and the last.

S-Attn with a mask: row t sees keys t − window + 1 … t and the first ``sinks`` tokens. Positions in
prefill and training are the tokens' own. A decode step's cache has the sinks and the last
window − 1 tokens, keys un-rotated: they are rotated at their places 0, 1, … in the cache, all at
each step (M-RoPE: its three rows alike). O(V·window) pairs; the kernels compute all V² under the
mask, but ``flex``. A decode step is O(1) in |V|. No parameters. Gives up: it forgets. With the
image first, text beyond the window sees four visual tokens: a baseline for live video, not for
questions about all of it.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS, Cached, Pairs, System
from workbench.lvlm.attention.s_attn import SAttn, SAttnLayer
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Band, Branch, Kernel, Scores
from workbench.lvlm.layout import Layout, causal_pairs
from workbench.lvlm.marks import region
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
        count = cached.visual + cached.text
        self.tables = context.cache_rope(place.index, count + 1)
        self.factor = context.query_factor("cache", count)
        self.scores = Scores(parts.scale, parts.softcap, causal=False)
        for name in ("keys", "values"):
            self.register_buffer(name, context.cache(parts, count), persistent=False)

    def forward(self, token: Tensor) -> tuple[Tensor]:
        """[B, 1, D] -> [B, 1, D]."""
        parts, x = self.parts, self.parts.input_norm(token)
        (query, gate), (key, value) = parts.query_and_gate(x, self.factor), parts.key_value(x)
        with region("attention"):
            cos, sin = self.tables
            query = parts.rope(query, cos[..., -1:, :], sin[..., -1:, :])
            key = parts.rope(torch.cat((self.keys, key), 2), cos, sin)
            value = torch.cat((self.values, value), 2)
            attended = self.kernel.own(Branch(query, key, value), self.scores)
        return (parts.finish(token, parts.output(attended, gate)),)


class Streaming(SAttn):
    name = "streaming"
    keeps_cache = False
    mixes = True

    @property
    def sinks(self) -> int:
        return int(self.settings["sinks"])

    @property
    def window(self) -> int:
        return int(self.settings["window"])

    def band(self, layout: Layout) -> Band | None:
        """What the mask has beside causality; None where it hides nothing."""
        return Band(self.window, self.sinks) if self._hides(layout) else None

    def _hides(self, layout: Layout) -> bool:
        return self.sinks + self.window < layout.length

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        if context.cell.pass_ == "decode":
            context.kernel.refuse(parts, True, False)  # Its call is of a branch, not of a layer.
            return StreamingDecode(self, parts, context, place)
        band = self.band(place.layout)
        if band is not None and not context.kernel.takes_mask:
            raise Unsupported(
                f"{self.name} needs a mask (a window has no sinks), which kernel "
                f"{context.kernel.name!r} does not take; use eager, sdpa or flex"
            )
        layer = SAttnLayer(parts, context, place)
        layer.mask = context.mask(place.layout.length, parts.window, band)
        return layer

    def skips(self, kernel: Kernel, place: Place, window: int | None) -> bool:
        hides = self._hides(place.layout) or self.window_bites(place, window)
        return kernel.skips(hides)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        n = place.layout.length
        if not self._hides(place.layout):
            return super().pairs(place, window)
        near = self.window if window is None else min(self.window, window)
        first = min(self.sinks, n)
        reach = n if window is None else window
        # A sink is seen by the rows beyond the window of recent tokens, up to the family's own.
        beyond = sum(max(0, min(n, s + reach) - (s + self.window)) for s in range(first))
        return Pairs(n * n, causal_pairs(n, near) + beyond)

    def cached(self, place: Place, window: int | None) -> Cached:
        if self.sinks + self.window > place.layout.length:
            return super().cached(place, window)
        layout, end = place.layout, place.layout.length
        near = self.window if window is None else min(self.window, window)
        recent = end + 1 - near
        oldest = 0 if window is None else max(0, end + 1 - window)
        sinks = range(min(oldest, recent), min(self.sinks, recent))
        counts = (
            layout.num_last(visual, near)
            + sum(
                max(0, min(sinks.stop, s.start + s.length) - max(sinks.start, s.start))
                for s in layout.segments
                if s.visual == visual
            )
            for visual in (True, False)
        )
        return Cached(*counts)


SYSTEMS.add("streaming", Streaming())
