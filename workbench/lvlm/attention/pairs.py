"""Query-key pairs of two streams in closed form: which tokens of the other one rows see."""

from collections.abc import Iterable

from workbench.lvlm.attention.costs import Pairs
from workbench.lvlm.kernels import Prefix
from workbench.lvlm.layout import Chunk, Layout, Segment, causal_pairs


def text_prefixes(layout: Layout) -> tuple[Prefix, ...]:
    """Which visual tokens each run of text rows sees."""
    return tuple(
        Prefix(s.offset, s.offset + s.length, s.visual_before)
        for s in layout.text_segments
        if s.visual_before
    )


def visual_prefixes(layout: Layout) -> tuple[Prefix, ...]:
    """Which text tokens each run of visual rows sees under a full V2V."""
    return tuple(
        Prefix(s.offset, s.offset + s.length, s.text_before)
        for s in layout.visual_segments
        if s.text_before
    )


def cross_pairs(layout: Layout) -> int:
    """T2V pairs where text has no distance to the visual tokens before it."""
    return sum((p.stop - p.start) * p.length for p in text_prefixes(layout))


def rotated_pairs(layout: Layout, window: int | None) -> Pairs:
    """Pairs of text rows where T2V keeps its distances, and with them the window."""
    cross = sum(
        window_pairs(row, key, window)
        for row in layout.text_segments
        for key in layout.visual_segments
        if key.start < row.start
    )
    return Pairs(layout.num_text**2 + cross_pairs(layout), text_pairs(layout, window) + cross)


def text_pairs(layout: Layout, window: int | None) -> int:
    """T2T pairs that causality and the window (by index in the sequence) allow."""
    return stream_pairs(layout.text_segments, layout.text_segments, window)


def stream_pairs(rows: Iterable[Segment], keys: Iterable[Segment], window: int | None) -> int:
    """Pairs of rows with keys that causality and the window allow, segment by segment."""
    return sum(
        own_pairs(row, window) if row is key else window_pairs(row, key, window)
        for row in rows
        for key in keys
        if key.start <= row.start
    )


def own_pairs(row: Segment, window: int | None) -> int:
    """Pairs of a segment with itself, which a chunk's end may cut."""
    if not isinstance(window, Chunk):
        return causal_pairs(row.length, window)
    head = min(row.length, -row.start % window)
    return causal_pairs(head) + causal_pairs(row.length - head, window)


def window_pairs(row: Segment, key: Segment, window: int | None) -> int:
    """Pairs of a row segment with an earlier key segment, at distances below the window or, under
    one in chunks, in the one chunk that both can share."""
    if window is None:
        return row.length * key.length
    if isinstance(window, Chunk):
        first = row.start // window * window
        rows = min(row.length, first + window - row.start)
        return rows * max(0, min(key.length, key.start + key.length - first))
    gap = row.start - key.start - key.length + 1  # The smallest distance.
    return sum(
        min(row.length, key.length, d + 1, row.length + key.length - 1 - d)
        for d in range(min(window - gap, row.length + key.length - 1))
    )
