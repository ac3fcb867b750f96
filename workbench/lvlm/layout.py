"""Where the visual and the text tokens stand in the sequence.

S = V + T tokens; a layout such as ``T,V,T`` splits each kind evenly over its segments, the
remainder going to the first ones, unless it gives their sizes: ``V729,T,V1458,T``. Positions are
indices in the whole sequence: the position under S-Attn.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from workbench.vocabulary.cell import Cell


class Chunk(int):
    """A window that does not slide: rows see those before them from a multiple of it on."""


@dataclass(frozen=True)
class Segment:
    """A run of tokens of one kind: ``start`` in the sequence, ``offset`` in its own stream."""

    visual: bool
    start: int
    offset: int
    length: int
    visual_before: int
    """Visual tokens earlier in the sequence: what a text row of this segment sees."""
    text_before: int


@dataclass(frozen=True)
class Layout:
    """The segments of one sequence, all samples of the batch alike."""

    num_visual: int
    num_text: int
    pattern: str = "V,T"

    @classmethod
    def of(cls, cell: Cell) -> "Layout":
        """The layout that the cell asks for."""
        return cls(cell.num_visual, cell.num_text, cell.layout)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Non-empty segments in sequence order."""
        parts = self.pattern.split(",")
        kinds = [part[0] for part in parts]
        shares = {
            kind: self._shares(kind, [part[1:] for part in parts if part[0] == kind], total)
            for kind, total in (("V", self.num_visual), ("T", self.num_text))
        }
        used, segments = {"V": 0, "T": 0}, []
        for kind in kinds:
            length = shares[kind].pop(0) if shares[kind] else 0
            if length:
                segments.append(
                    Segment(
                        kind == "V", sum(used.values()), used[kind], length, used["V"], used["T"]
                    )
                )
                used[kind] += length
        if used != {"V": self.num_visual, "T": self.num_text}:
            missing = "visual" if used["V"] != self.num_visual else "text"
            raise ValueError(f"layout {self.pattern!r} has no place for the {missing} tokens")
        return tuple(segments)

    def _shares(self, kind: str, sizes: list[str], total: int) -> list[int]:
        """Tokens of each segment of a kind: as written, or split evenly."""
        if not any(sizes):
            return even_shares(total, len(sizes))
        shares = [int(size or 0) for size in sizes]
        if not all(sizes) or sum(shares) != total:
            raise ValueError(
                f"{self.pattern!r}: the sizes of {kind} must all be there and sum to {total}"
            )
        return shares

    @property
    def length(self) -> int:
        """S, the tokens of the whole sequence."""
        return self.num_visual + self.num_text

    @property
    def text_segments(self) -> tuple[Segment, ...]:
        return tuple(s for s in self.segments if not s.visual)

    @property
    def visual_segments(self) -> tuple[Segment, ...]:
        return tuple(s for s in self.segments if s.visual)

    @property
    def image_first(self) -> bool:
        """Whether no text stands before a visual token."""
        return all(s.text_before == 0 for s in self.visual_segments)

    def num_last(self, visual: bool, window: int | None) -> int:
        """How many tokens of one stream a cache under that window has for the next token."""
        first = 0 if window is None else self.length + 1 - window
        return self.num_between(visual, first, self.length)

    def num_hidden(self, visual: bool, window: int | None) -> int:
        """How many of these the next token does not see: a chunk's cache still has some."""
        if not isinstance(window, Chunk):
            return 0
        first = self.length + 1 - window
        return self.num_between(visual, first, first_seen(self.length, window))

    def num_between(self, visual: bool, first: int, stop: int) -> int:
        """Tokens of one stream at indices from ``first`` on and before ``stop``."""
        segments = (s for s in self.segments if s.visual == visual)
        return sum(max(0, min(stop, s.start + s.length) - max(s.start, first)) for s in segments)

    def positions(self, visual: bool) -> Tensor:
        """Sequence indices of one stream, int64 [V] or [T]."""
        parts = [
            torch.arange(s.start, s.start + s.length) for s in self.segments if s.visual == visual
        ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)

    def rows(self, visual: bool) -> Tensor:
        """Where one stream stands among the rows of this process, int64 [V] or [T]."""
        return self.positions(visual)

    @property
    def sequence(self) -> Tensor:
        """Sequence indices of the rows of this process, int64 [S]."""
        return torch.arange(self.length)

    def attended(self, window: int | None) -> tuple[int, int]:
        """Query-key pairs of one causal sequence: computed densely, and allowed by the mask."""
        return self.length**2, causal_pairs(self.length, window)

    @property
    def shared_heads(self) -> int:
        """Processes that divide the heads of such a sequence among them."""
        return 1

    def split(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, ...] -> the visual stream [B, V, ...] and the text stream [B, T, ...]."""
        if len(self.segments) == 1 or self.image_first:
            return sequence[:, : self.num_visual], sequence[:, self.num_visual :]
        streams = []
        for visual in (True, False):
            parts = [
                sequence[:, s.start : s.start + s.length]
                for s in self.segments
                if s.visual == visual
            ]
            streams.append(torch.cat(parts, 1) if parts else sequence[:, :0])
        return streams[0], streams[1]

    def join(self, visual: Tensor, text: Tensor) -> Tensor:
        """The inverse of ``split``: [B, V, ...] and [B, T, ...] -> [B, S, ...]."""
        parts = [
            (visual if s.visual else text)[:, s.offset : s.offset + s.length]
            for s in self.segments
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def first_seen(row: int, window: int | None) -> int:
    """The first index that the row at an index sees."""
    if window is None:
        return 0
    return row // window * window if isinstance(window, Chunk) else max(0, row + 1 - window)


def sight_end(key: int, window: int) -> int:
    """The first index after a key's whose row does not see it."""
    return (key // window + 1) * window if isinstance(window, Chunk) else key + window


def hidden_by(rows: Tensor, keys: Tensor, window: int) -> Tensor:
    """Whether a window hides a key at or before a row: [..., R], [..., C] -> bool [..., R, C]."""
    rows, keys = rows[..., :, None], keys[..., None, :]
    if isinstance(window, Chunk):
        return rows // int(window) > keys // int(window)
    return rows - keys >= window


def word_of(window: int | None) -> str:
    """What a refusal calls it."""
    return "chunk" if isinstance(window, Chunk) else "sliding window"


def without_first(x: Tensor, count: int) -> Tensor:
    """Tokens [B, G, n, K] without the first ``count``; the very tensor where that is none."""
    return x[:, :, count:] if count else x


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows [B, n] of x [B, S, D], each sample's own: [B, n, D]."""
    return x.gather(1, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def even_shares(total: int, count: int) -> list[int]:
    """``total`` in ``count`` parts that differ by one at most, the larger ones first."""
    base, extra = divmod(total, count) if count else (0, 0)
    return [base + (i < extra) for i in range(count)]


def causal_pairs(rows: int, window: int | None = None, first: int = 0) -> int:
    """Causal query-key pairs of ``rows`` consecutive queries, the first at index ``first``.

    A window w lets a query see itself and the w - 1 keys before it; a chunk those in the chunk.
    """
    if isinstance(window, Chunk):
        assert first == 0, "of whole sequences alone"
        whole, rest = divmod(rows, window)
        return whole * causal_pairs(int(window)) + causal_pairs(rest)
    if window is None or first + rows <= window:
        return rows * first + rows * (rows + 1) // 2
    growing = max(0, min(rows, window - first))
    return growing * first + growing * (growing + 1) // 2 + (rows - growing) * window
