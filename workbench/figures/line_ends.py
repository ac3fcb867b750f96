"""The short name of a line at its end, in its colour, where it covers nothing."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import plotly.graph_objects as go

from workbench.figures.style import Theme

LINE_END = "line end"
"""What such an annotation is called in a figure: a narrow screen leaves them out."""
MOST_NAMED = 9
"""Lines of one panel beyond which only the legend names them."""
LETTER, HIGH, APART = 6.6, 15.0, 9.0
"""Pixels of a letter at the mean, of a line of words, and from a point to them."""
MARGIN, MOST_BESIDE = 16.0, 120.0
"""Pixels right of a panel without names, and at most for them."""
WIDER = (1.0, 1.3, 1.7)
"""A page may be wider than it must be: a name covers nothing at any of these times the width."""
STEPS = (0, 1, -1, 2, -2, 3, -3)
"""Lines of words up or down from the line's end, the nearest place first."""

Point = tuple[float, float]


class Stroke(NamedTuple):
    """A line in a panel: its points as shares of the panel's width and height, in their order."""

    points: Sequence[Point]
    name: str = ""
    """Without a name it is only not to be covered."""
    color: str = ""
    end: Point = (0.0, 0.0)
    """The last point as an annotation has it: the exponents on logarithmic axes."""


class Room(NamedTuple):
    """A panel: the axes' names, pixels that it has at least, and the share below its strip."""

    x_ref: str
    y_ref: str
    width: float
    height: float
    top: float = 1.0
    beside: float = MOST_BESIDE
    """Pixels right of the panel that a name may take."""


class Names(NamedTuple):
    """The annotations, and pixels of the margin right of the panel that they need."""

    notes: list[dict[str, Any]]
    margin: float


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float


def line_ends(strokes: Sequence[Stroke], room: Room, theme: Theme) -> Names:
    """An annotation for each named stroke that has room for it; the first to come chooses first.

    A name stands right of the last point, or some lines higher or lower with a thin line to it; it
    covers no other stroke and no other name.
    """
    lines = [stroke for stroke in strokes if stroke.name and stroke.points]
    if len(lines) > MOST_NAMED:
        return Names([], MARGIN)
    rooms = [room._replace(width=room.width * wider) for wider in WIDER]
    notes, boxes = [], [list[_Box]() for _ in rooms]
    for stroke in lines:
        for step in STEPS:
            own = [_box(stroke, step, each) for each in rooms]
            if all(map(partial(_has_room, strokes=strokes), own, boxes, rooms)):
                for box, earlier in zip(own, boxes, strict=True):
                    earlier.append(box)
                notes.append(_note(stroke, step, room, theme))
                break
    beyond = max((box.right for box in boxes[0]), default=0.0) - room.width
    return Names(notes, max(MARGIN, MARGIN / 2 + beyond))


def without_line_ends(figure: go.Figure) -> go.Figure:
    """The same figure with names in its legend alone, where they take no width."""
    notes = [note for note in figure.layout.annotations if note.name != LINE_END]
    if len(notes) == len(figure.layout.annotations):
        return figure
    bare = go.Figure(figure)
    bare.layout.annotations = notes
    bare.layout.margin.r = MARGIN
    return bare


def _box(stroke: Stroke, step: int, room: Room) -> _Box:
    x, y = stroke.points[-1]
    left, middle = x * room.width + APART, y * room.height + step * HIGH
    right = left + LETTER * len(stroke.name)
    return _Box(left, middle - HIGH / 2, right, middle + HIGH / 2)


def _has_room(box: _Box, boxes: Sequence[_Box], room: Room, strokes: Sequence[Stroke]) -> bool:
    if box.bottom < 0 or box.top > room.top * room.height:
        return False
    if box.right > room.width + room.beside:
        return False
    if any(_overlap(box, other) for other in boxes):
        return False
    return not any(_crosses(box, stroke.points, room) for stroke in strokes)


def _overlap(one: _Box, other: _Box) -> bool:
    apart = one.right < other.left or other.right < one.left
    return not apart and one.bottom < other.top and other.bottom < one.top


def _crosses(box: _Box, points: Sequence[Point], room: Room) -> bool:
    """Whether a line through the points meets the box."""
    at = [(x * room.width, y * room.height) for x, y in points]
    return any(_meets(box, *ends) for ends in zip(at, at[1:] or at, strict=False))


def _meets(box: _Box, start: Point, end: Point) -> bool:
    (x1, y1), (x2, y2) = sorted((start, end))
    left, right = max(box.left, x1), min(box.right, x2)
    if left > right:
        return False
    slope = (y2 - y1) / (x2 - x1) if x2 > x1 else 0.0
    heights = [y1 + slope * (at - x1) for at in (left, right)] if x2 > x1 else [y1, y2]
    return min(heights) < box.top and max(heights) > box.bottom


def _note(stroke: Stroke, step: int, room: Room, theme: Theme) -> dict[str, Any]:
    x, y = stroke.end
    color = theme.words(stroke.color)
    away = (
        {
            "showarrow": True,
            "arrowhead": 0,
            "arrowwidth": 1,
            "arrowcolor": color,
            "standoff": 5,
            "ax": APART,
            "ay": -step * HIGH,
        }
        if step
        else {"showarrow": False, "xshift": APART}
    )
    return {
        "name": LINE_END,
        "text": stroke.name,
        "xref": room.x_ref,
        "yref": room.y_ref,
        "x": x,
        "y": y,
        "xanchor": "left",
        "yanchor": "middle",
        "font": {"size": 12, "color": color},
        **away,
    }
