"""The shared pieces of every decomposed system: the V2V path, the T2V and T2T path, the merge.

The visual stream of a diagonal system is token-wise: norm, k, v, W_o and MLP. It can run in
chunks.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import Sharing, System
from workbench.lvlm.attention.costs import Cached, Pairs, token_flops
from workbench.lvlm.attention.pairs import cross_pairs, text_pairs, text_prefixes
from workbench.lvlm.attention.row_inputs import NOTHING, RowInputs
from workbench.lvlm.caches.prefill import PrefillCache
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch, Prefix, Scores
from workbench.lvlm.layout import without_first
from workbench.lvlm.parts.chunked import token_chunks
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


STREAMS = ("visual", "text")
"""Of a decomposed system."""


def prefix_rows(prefixes: Sequence[Prefix], num_rows: int, context: Context) -> Tensor | None:
    """1 for each row that sees something, else 0, [R, 1]; None where every row does."""
    if sum(p.stop - p.start for p in prefixes) == num_rows:
        return None

    def make() -> Tensor:
        sees = torch.zeros(num_rows, 1, dtype=context.dtype)
        for p in prefixes:
            sees[p.start : p.stop] = 1
        return sees

    return context.constant(("rows that see", tuple(prefixes), num_rows), make)


class DecomposedLayer(nn.Module):
    """D-Attn on the layer's own weights: diagonal V2V, T2V without RoPE, α-weighting."""

    visual_keys: Tensor
    visual_values: Tensor
    text_keys: Tensor
    text_values: Tensor

    rotate_visual = False
    """Whether T2V keeps RoPE (the biased variants)."""

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__()
        self.system = system
        self.layer = parts.layer
        self.parts, self.visual_parts = parts, parts.visual_rows()
        self.kernel = context.kernel
        self.fold, self.chunk = context.cell.fold, context.cell.chunk
        self.only_keys = place.keys_only
        self.visual_tables: tuple[Tensor, Tensor] | None = None
        self.decode = context.cell.pass_ == "decode"
        self.held = system.own_keys if parts.takes_keys else STREAMS
        """Streams of whose keys and values it has a cache."""
        self.kept: PrefillCache | None = None
        if self.decode:
            self._hold(context, place)
            return
        self.kept = context.kept_cache()
        self.cached = system.cached(place, parts.window)
        self.num_rows = place.layout.num_text
        self.prefixes = text_prefixes(place.layout)
        self.text_tables = context.rope(place.index, "text")
        self.query_factor = context.query_factor(place.index, "text")
        if self.rotate_visual:
            self.visual_tables = context.rope(place.index, "visual")
        self.scores = context.scores(parts, True, window_on_other=self.rotate_visual)

    def _hold(self, context: Context, place: Place) -> None:
        """One text row against a cache of the tokens that it sees.

        Text keys are rotated. Visual keys are rotated only where T2V keeps RoPE; visual keys and
        values are never repeated. Of latents keys and values are made at each step.
        """
        cached = self.system.cached(place, self.parts.window)
        self.hidden = self.system.hidden(place, self.parts.window)
        self.num_rows, seen = 1, cached.visual - self.hidden.visual
        self.prefixes = (Prefix(0, 1, seen),) if seen else ()
        self.text_tables = context.rope(place.index, "next")
        self.query_factor = context.query_factor(place.index, "next")
        self.scores = Scores(self.parts.scale, self.parts.softcap, causal=False)
        for stream in self.held:
            tokens = getattr(cached, stream)
            for name in ("keys", "values"):
                cache = context.cache(self.parts, tokens, name)
                self.register_buffer(f"{stream}_{name}", cache, persistent=False)

    def forward(self, *state: Tensor, more: RowInputs = NOTHING) -> tuple[Tensor, ...]:
        """[B, V, D], [B, T, D] -> the same shapes; the text alone [B, 1, D] in a decode step."""
        if self.decode:
            (token,) = state
            return (self.text_stream(token, *self.cached_visual(more), more),)
        visual, text = state
        return self.streams(visual, text, more)

    def cached_visual(self, more: RowInputs) -> tuple[Tensor | None, Tensor | None]:
        """Visual keys and values of a decode step, given on where later layers take them."""
        if "visual" not in self.held:
            key, value = more.taken.get("visual", (None, None))
            return key, value
        keys, values = (
            without_first(x, self.hidden.visual) for x in (self.visual_keys, self.visual_values)
        )
        key, value = self.parts.expand((keys, values))
        more.give("visual", key, value)
        return key, value

    def streams(self, visual: Tensor, text: Tensor, more: RowInputs) -> tuple[Tensor, Tensor]:
        """[B, V, D], [B, T, D] -> the same shapes."""
        key = value = None
        latents: list[Tensor] = []
        if visual.shape[1]:
            visual, key, value, *latents = self.visual_stream(visual, more)
            # What is rotated first is kept then.
            if not (self.rotate_visual and self.prefixes):
                self.keep("visual", *(latents or (key, value)))
        if text.shape[1]:
            text = self.text_stream(text, key, value, more, *latents)
        return visual, text

    def keep(self, stream: str, key: Tensor, value: Tensor) -> None:
        """Hold a stream's keys and values, of a prefill whose cache is kept."""
        if self.kept is not None and stream in self.held:
            self.kept.keep_last(getattr(self.cached, stream), key, value)

    def visual_stream(self, visual: Tensor, more: RowInputs) -> tuple[Tensor, ...]:
        """The visual output, and keys and values [B, G, V, K] that text attends to: un-rotated,
        but for those of another layer.

        Behind them, where a cache is kept that has others, its entries.
        """
        taken = more.taken.get("visual")
        if taken is None:
            visual, key, value, *latents = self.by_token(visual, more)
            # What is rotated first is given on then.
            if not (self.rotate_visual and self.prefixes):
                more.give("visual", key, value)
            return visual, key, value, *latents
        key, value = taken
        if not self.only_keys:
            (visual,) = self.by_token(visual, more, value)
        return visual, key, value

    def by_token(self, visual: Tensor, more: RowInputs, *taken: Tensor) -> tuple[Tensor, ...]:
        """``_tokens`` over all rows or in chunks, its keys and values as [B, G, V, K].

        ``taken`` are the values [B, G, V, K] of another layer.
        """
        inputs = [more.own.get("visual"), *(x.transpose(1, 2) for x in taken)]
        if self.chunk is None or visual.shape[1] <= self.chunk:
            visual, *made = self._tokens(visual, *inputs)
        else:
            there = [x is not None for x in inputs]

            def run(part: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
                given = iter(rows)
                return self._tokens(part, *(next(given) if x else None for x in there))

            rows = [visual, *(x for x in inputs if x is not None)]
            visual, *made = token_chunks(run, self.chunk, rows, list(self.parameters()))
        return visual, *(x.transpose(1, 2) for x in made)

    def _tokens(
        self, visual: Tensor, own: Tensor | None = None, taken: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Token-wise: [B, n, D] -> output [B, n, D], key and value [B, n, G, K].

        ``own`` are the rows' embeddings for this layer [B, n, P]. Where the values [B, n, G, K]
        are ``taken`` from another layer, the output is all that is made.
        """
        parts = self.visual_parts
        if taken is not None:  # Nothing is projected of normed rows.
            return (parts.finish(visual, self.diagonal(taken, visual), own=own),)
        x = parts.input_norm(visual)
        key, value, *latents = self.keys_and_latents(x)
        if not self.only_keys:
            visual = parts.finish(visual, self.diagonal(value, x), x, own)
        return visual, key, value, *latents

    def keys_and_latents(self, x: Tensor) -> tuple[Tensor, ...]:
        """Un-rotated key and value [B, n, G, K] of normed rows [B, n, D]; a norm that follows
        RoPE is there where no RoPE will.

        Behind them, where a cache is kept of latents, these and the parts to rotate [B, n, 1, …].
        """
        entries = self.parts.entries(x)
        key, value = self.parts.expand(entries)
        latents = () if self.kept is None or key is entries[0] else entries
        if not self.rotate_visual:
            key = self.parts.unturned_key(key)
        # A part is a slice of its row, which it would keep whole.
        return (
            *(y.transpose(1, 2) for y in (key, value)),
            *(y.transpose(1, 2).contiguous() for y in latents),
        )

    def diagonal(self, value_bngk: Tensor, x: Tensor) -> Tensor:
        """V2V of eq. 2: W_o over the repeated values [B, n, G, K] -> [B, n, D].

        ``x`` are the normed rows [B, n, D], of which a family's output gate is made.
        """
        with region("V2V"):
            return self.parts.project_diagonal(value_bngk, self.fold, self.parts.gate(x))

    def text_stream(
        self,
        text: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        more: RowInputs,
        *latents: Tensor,
    ) -> Tensor:
        """Text rows: [B, T, D] -> [B, T, D]; key and value are None where there is no image.

        ``latents`` are what a cache keeps of visual tokens instead, where it does.
        """
        parts, x = self.parts, self.parts.input_norm(text)
        (q, gate), (cos, sin) = parts.query_and_gate(x, self.query_factor), self.text_tables
        entries = None if "text" in more.taken else parts.entries(x)
        with region("T2T"):
            q_rope = parts.turn_query(q, cos, sin)
            if entries is not None:
                entries = parts.rotate(entries, cos, sin)
                if self.decode:
                    before = self.text_keys, self.text_values
                    entries = joined(before, entries, self.hidden.text)
        if entries is not None:
            self.keep("text", *entries)
        own = Branch(q_rope, *more.keys_of("text", parts, entries), "T2T")
        if key is None or value is None or not self.prefixes:
            with region("T2T"):
                attended = self.kernel.own(own, self.scores)
        else:
            if self.visual_tables is not None and "visual" not in more.taken:
                with region("T2V"):
                    key = parts.turn_key(key, *self.visual_tables)
                    if latents:
                        latents = parts.rotate((latents[0], latents[1]), *self.visual_tables)
                self.keep("visual", *(latents or (key, value)))
                more.give("visual", key, value)
            attended = self.merge(own, self.other(q, q_rope, key, value), self.scores, x)
        return parts.finish(text, parts.output(attended, gate), x, more.own.get("text"))

    def other(self, q: Tensor, q_rope: Tensor, key: Tensor, value: Tensor) -> Branch:
        """The T2V branch: which queries meet the visual keys."""
        query = q_rope if self.rotate_visual else self.parts.unturned_query(q)
        return Branch(query, key, value, "T2V")

    def merge(self, own: Branch, other: Branch, scores: Scores, x: Tensor) -> Tensor:
        """T2T and T2V of normed rows x [B, T, D] merged: [B, H, T, K].

        α-weighting is one softmax over both.
        """
        return self.kernel.merged(own, other, self.prefixes, scores)

    def apart(self, own: Branch, other: Branch, scores: Scores) -> tuple[Tensor, Tensor]:
        """T2T and T2V with a softmax each, [B, H, T, K]; 0 in rows that see no visual token."""
        with region(own.region):
            sa = self.kernel.own(own, scores)
        with region(other.region):
            xa = self.kernel.cross(other, self.prefixes, scores)
        return sa, xa


def joined(
    before: tuple[Tensor, Tensor], entries: tuple[Tensor, Tensor], hidden: int = 0
) -> tuple[Tensor, Tensor]:
    """What a cache holds of tokens but for the first ``hidden``, and of those after them.

    Each is [B, G, n, K].
    """
    first, second = (
        torch.cat((without_first(old, hidden), new), 2)
        for old, new in zip(before, entries, strict=True)
    )
    return first, second


class Decomposed(System):
    """Costs of a system with a diagonal V2V."""

    layer_class: type[DecomposedLayer] = DecomposedLayer
    lacks = ""
    keeps_cache = True
    mixes = True
    modal = True
    norms_turned = True
    ring: Sharing = "text"

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        return self.layer_class(self, parts, context, place)

    def cached(self, place: Place, window: int | None) -> Cached:
        cached = super().cached(place, window)
        if self.layer_class.rotate_visual:
            return cached
        return replace(
            cached, visual=place.layout.num_visual
        )  # No distance without RoPE, no window.

    def hidden(self, place: Place, window: int | None) -> Cached:
        hidden = super().hidden(place, window)
        return hidden if self.layer_class.rotate_visual else replace(hidden, visual=0)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        layout, cross = place.layout, cross_pairs(place.layout)
        return Pairs(layout.num_text**2 + cross, text_pairs(layout, window) + cross)

    def pairs_by_stream(self, place: Place, window: int | None) -> dict[str, Pairs] | None:
        whole = self.pairs(place, window)
        own = Pairs(place.layout.num_text**2, text_pairs(place.layout, window))
        across = Pairs(whole.dense - own.dense, whole.allowed - own.allowed)
        return {"T2T": own, "T2V": across}

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        visual = token_flops(parts.visual_rows(), q=False, rest=not place.keys_only)
        if cell.fold and not place.keys_only:
            visual -= (
                2 * parts.hidden_size * parts.head_dim * (parts.num_heads - parts.num_kv_heads)
            )
        layout = place.layout
        return cell.batch * (layout.num_visual * visual + layout.num_text * token_flops(parts))
