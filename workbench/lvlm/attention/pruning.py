"""Shared by systems whose visual tokens leave the sequence between layers of S-Attn.

Which tokens stay is data: each sample ranks its own by the attention that they have from the last
row, the mean over heads. What stays keeps its order and its position. The state is the sequence
[B, S, D]; once tokens have left, [B, n, D] and the positions [B, n] of what is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from workbench.lvlm.attention import System
from workbench.lvlm.attention.costs import Pairs
from workbench.lvlm.attention.s_attn import SAttn, SAttnDecode, SAttnLayer
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch, Scores
from workbench.lvlm.kernels.eager import wide
from workbench.lvlm.layout import Chunk, Layout, first_seen, hidden_by, take_rows, word_of
from workbench.lvlm.parts.marks import region, unmasked
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError, Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts

RANKS_FIRST, RANKS_LAST = "ranks, then attends", "attends, then gathers"
"""Roles of the layers that rank: what they run on is what is left, or what was there."""


@dataclass(frozen=True)
class Kept(Layout):
    """What is left of ``source``: all of its text and ``num_visual`` of its visual tokens.

    Which of them is data. Where a cost depends on it (a sliding window), they are taken for evenly
    spaced ones.
    """

    source: Layout = field(default_factory=lambda: Layout(0, 0))

    @property
    def whole(self) -> Layout:
        """The layout of the sequence that enters the first layer."""
        return self.source.whole if isinstance(self.source, Kept) else self.source

    def places(self, visual: bool) -> "Places":
        """Positions of one stream in that sequence, int64 [V] or [T]."""
        there = places_in(self.source, visual)
        if not visual:
            return there
        return there[np.arange(self.num_visual) * len(there) // max(1, self.num_visual)]

    def num_last(self, visual: bool, window: int | None) -> int:
        if window is None:
            return self.num_visual if visual else self.num_text
        return int((self.places(visual) >= self.whole.length + 1 - window).sum())

    def num_hidden(self, visual: bool, window: int | None) -> int:
        if not isinstance(window, Chunk):
            return 0
        seen = self.places(visual) >= first_seen(self.whole.length, window)
        return self.num_last(visual, window) - int(seen.sum())


def kept_of(source: Layout, num_visual: int) -> Kept:
    """What is left of a layout with so many visual tokens."""
    return Kept(num_visual, source.num_text, source=source)


Places = np.ndarray[tuple[int], np.dtype[np.int64]]


def places_in(layout: Layout, visual: bool) -> Places:
    """Positions of one stream; plain numbers, for costs are asked for where tensors are shapes."""
    if isinstance(layout, Kept):
        return layout.places(visual)
    runs = [np.arange(s.start, s.start + s.length) for s in layout.segments if s.visual == visual]
    return np.concatenate(runs) if runs else np.arange(0)


@lru_cache(maxsize=64, typed=True)  # A chunk is another window than a number.
def seen_within(layout: Kept, window: int) -> int:
    """Pairs of what is left that causality and the window (by position) allow."""
    places = np.sort(np.concatenate([layout.places(visual) for visual in (True, False)]))
    chunked = isinstance(window, Chunk)
    oldest = places // int(window) * int(window) if chunked else places - window + 1
    first = np.searchsorted(places, oldest)
    return int((np.arange(len(places)) - first + 1).sum())


class PrunedLayer(SAttnLayer):
    """The untouched layer over the rows that are left; some layers rank and gather them."""

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(parts, context, place)
        self.parts, self.role, self.dtype = parts, place.role, context.dtype
        self.window = parts.window if system.window_bites(place, parts.window) else None
        if self.window is not None and isinstance(place.layout, Kept):
            self.mask = None  # By position, so it is made of what is left.
        remaining = ranked(system, place)
        self.num_left = None if remaining is None else remaining.length
        self.rotations = context.rope(place.index, "sequence")
        self.kernel = context.kernel
        self.factor = context.query_factor(place.index, "sequence")
        self.by_parts = scales_what_is_left(parts, context, place)
        if remaining is not None:
            whole = torch.zeros(context.layout.length, dtype=torch.bool)
            whole[context.layout.positions(visual=False)] = True
            self.is_text = context.keep(whole.to(context.device))

    def forward(self, sequence: Tensor, positions: Tensor | None = None) -> tuple[Tensor, ...]:
        """[B, S, D] -> [B, S, D], with positions [B, n] once tokens have left."""
        rows = None if self.num_left is None else self.choose(sequence, positions)
        if rows is not None and self.role == RANKS_FIRST:
            sequence, positions = gathered(sequence, positions, rows)
        sequence = self.attend(sequence, positions)
        if rows is not None and self.role == RANKS_LAST:
            sequence, positions = gathered(sequence, positions, rows)
        return (sequence,) if positions is None else (sequence, positions)

    def attend(self, sequence: Tensor, positions: Tensor | None) -> Tensor:
        """The layer as transformers ships it, under the tables and the mask of these positions."""
        mask, tables, places = self.mask, self.tables, self.places
        if positions is not None:
            if self.by_parts:
                return self.attend_by_parts(sequence, positions)
            whole = isinstance(tables, Tensor)  # Llama 4's, of complex numbers.
            tables = rows_at(tables, positions) if whole else at(tables, positions)
            places = None if places is None else positions
            if self.window is not None:
                mask = self.seen(positions)
        return self.layer(
            sequence,
            attention_mask=mask,
            position_embeddings=tables,
            position_ids=places,
            **self.cache(),
        )

    def attend_by_parts(self, sequence: Tensor, positions: Tensor) -> Tensor:
        """The same of a layer that would scale queries by their places among these rows."""
        assert self.factor is not None, "queries are scaled"
        parts, x = self.parts, self.parts.input_norm(sequence)
        query, gate = parts.query_and_gate(x, self.factor[positions][:, None])
        key, value = parts.key_value(x)
        with region("attention"):
            tables = at(self.rotations, positions)
            query, key = parts.rope(query, *tables), parts.rope(key, *tables)
            if "past_key_values" in (cache := self.cache()):
                key, value = cache["past_key_values"].update(key, value, 0)
            scores = Scores(parts.scale, parts.softcap)
            attended = self.kernel.own(Branch(query, key, value), scores)
        return parts.finish(sequence, parts.output(attended, gate), x)

    def seen(self, positions: Tensor) -> Tensor:
        """The additive mask [B, 1, n, n] of rows at these positions, under the window."""
        assert self.window is not None, "a window that bites"
        after = positions[:, :, None] < positions[:, None, :]
        hidden = after | hidden_by(positions, positions, self.window)
        mask = torch.zeros(hidden.shape, dtype=self.dtype, device=positions.device)
        return mask.masked_fill_(hidden, torch.finfo(self.dtype).min)[:, None]

    @torch.no_grad()
    def choose(self, sequence: Tensor, positions: Tensor | None) -> Tensor:
        """The rows [B, n'] that stay, in order: text, and what the last row attends to most."""
        with region("ranking"), unmasked():
            weights = self.last_row(sequence, positions)
            text = self.is_text if positions is None else self.is_text[positions]
            weights = weights.masked_fill(text, float("inf"))
            best = weights.argsort(dim=1, descending=True, stable=True)[:, : self.num_left]
            return best.sort(1).values

    def last_row(self, sequence: Tensor, positions: Tensor | None) -> Tensor:
        """The last row of the attention map of this input, mean over heads: [B, n]."""
        parts, x = self.parts, self.parts.input_norm(sequence)
        tables = self.rotations if positions is None else at(self.rotations, positions)
        factor = self.factor
        if factor is not None:
            factor = (factor if positions is None else factor[positions][:, None])[..., -1:, :]
        k = parts.rope(parts.key(x), *tables)
        q = parts.query(x[:, -1:], factor)
        q = parts.rope(q, *(table[..., -1:, :] for table in tables))
        batch, groups, n, size = k.shape
        q = q.reshape(batch, groups, -1, size)  # Query heads that share a key.
        scores = wide(torch.matmul(q, k.transpose(2, 3)) * parts.scale)
        if parts.softcap is not None:
            scores = torch.tanh(scores / parts.softcap) * parts.softcap
        if self.window is not None:
            at_rows = torch.arange(n, device=k.device)[None] if positions is None else positions
            far = hidden_by(at_rows[:, -1:], at_rows, self.window)
            scores = scores.masked_fill(far[:, None], float("-inf"))
        return torch.softmax(scores, -1).flatten(1, 2).mean(1)


def gathered(sequence: Tensor, positions: Tensor | None, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [B, n'] of a sequence [B, n, D], and their positions."""
    with region("gather"):
        places = rows if positions is None else positions.gather(1, rows)
        return take_rows(sequence, rows), places


def at(tables: Sequence[Tensor], positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin [1, S, K] (M-RoPE: [3, 1, S, K]) of each sample's positions: [B, n, K]."""
    cos, sin = (rows_at(table, positions) for table in tables)
    return cos, sin


def rows_at(table: Tensor, positions: Tensor) -> Tensor:
    """The same of one table."""
    return table[..., 0, :, :][..., positions, :]


def scales_what_is_left(parts: "LayerParts", context: Context, place: Place) -> bool:
    """Whether the layer runs on rows that are left, and scales queries by their places among
    these where their positions are asked for. Raises Unsupported where it cannot be told them.
    """
    left = isinstance(place.layout, Kept) and not context.model.family.scaled_queries
    if not left or context.query_factor(place.index, "sequence") is None:
        return False
    assert isinstance(place.layout, Kept), "rows that are left"
    bites = parts.window is not None and parts.window < place.layout.whole.length
    if bites:
        raise Unsupported(
            f"layers of {parts.attention.config.model_type} under a {word_of(parts.window)} that "
            "scale queries by their places among the rows that are left, not by their positions"
        )
    context.kernel.check(parts, True, False)
    context.require(parts, True)
    return True


def ranked(system: System, place: Place) -> Layout | None:
    """What the layer of a place leaves, where it ranks; None elsewhere."""
    assert isinstance(system, Pruning), "a system whose tokens leave"
    if place.role == RANKS_FIRST:
        return place.layout
    if place.role == RANKS_LAST:
        return kept_of(place.layout, system.first_kept(place.layout.num_visual))
    return None


class Pruning(SAttn):
    """Costs of a system whose visual tokens leave between layers."""

    lone_layer = False
    lacks = (
        "tokens leave between its layers, and the keys and values that later layers take would "
        "still have them"
    )
    stacks = False

    def first_kept(self, num_visual: int) -> int:
        """Visual tokens that the first ranking leaves of so many."""
        raise NotImplementedError

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        bites = self.window_bites(place, parts.window)
        if context.cell.pass_ == "decode":
            return SAttnDecode(parts, context, place)
        if bites and context.kernel.name != "eager":
            raise Unsupported(
                f"{self.name} leaves rows that do not follow each other, which the "
                f"{word_of(parts.window)} of {parts.attention.config.model_type} ({parts.window} "
                f"tokens) counts by position: kernel {context.kernel.name!r} cannot; use eager"
            )
        if bites and isinstance(place.layout, Kept):
            context.flag(
                f"flops_causal: which tokens {self.name} leaves is data; pairs inside the window "
                "are counted as if they were evenly spaced"
            )
        if context.cell.pass_ == "train":
            context.flag(f"{self.name}: a method for inference; its training is a cost, no recipe")
        return PrunedLayer(self, parts, context, place)

    def rows(self, state: tuple[Tensor, ...], layout: Layout, text_rows: Tensor | None) -> Tensor:
        sequence, *positions = state
        if text_rows is None or not positions:
            return super().rows((sequence,), layout, text_rows)
        index = text_rows.expand(sequence.shape[0], -1).contiguous()
        return take_rows(sequence, torch.searchsorted(positions[0], index))

    def left(self, state: tuple[Tensor, ...], text_rows: Tensor | None) -> Tensor | None:
        return state[1] if text_rows is None and len(state) > 1 else None

    def num_rows(self, layout: Layout, last: Place) -> int:
        return last.layout.length

    def pairs(self, place: Place, window: int | None) -> Pairs:
        layout = place.layout
        if not isinstance(layout, Kept) or window is None or window >= layout.whole.length:
            return super().pairs(place, None if isinstance(layout, Kept) else window)
        return Pairs(layout.length**2, seen_within(layout, window))

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        return super().linear_flops(parts, place, cell) + self.choice_flops(parts, place, cell)

    def choice_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        """Of ranking: one row of q, the keys of all rows, and the scores of the one over these."""
        if ranked(self, place) is None:
            return 0
        before = place.layout
        if place.role == RANKS_FIRST:
            assert isinstance(before, Kept), "what is left of something"
            before = before.source
        wide_, n = parts.num_heads * parts.head_dim, before.length
        return cell.batch * 2 * (parts.query_elements + (parts.key_elements + wide_) * n)

    def require(self, what: str, model: "Resolved", fits: bool) -> None:
        """Raise RequestError where a setting does not fit the model's layers."""
        if not fits:
            count = model.config.num_hidden_layers
            raise RequestError(f"{self.name}: {what}: {model.name} has {count} layers")
