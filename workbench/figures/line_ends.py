"""The short name of a line at its end, in its colour, where it covers nothing."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
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
FAR = 60.0
"""Pixels between two distances of a name from its line's end."""


class Place(NamedTuple):
    """Where a name may stand: pixels right of the line's end, or left of it where they are
    negative, and lines of words above it.
    """

    across: float
    steps: int

    @property
    def distance(self) -> float:
        """Pixels from the line's end; one at the right is preferred."""
        return math.hypot(self.across, self.steps * HIGH) + (HIGH if self.across < 0 else 0)


PLACES = sorted(
    (
        *(Place(APART, steps) for steps in range(-5, 6)),
        *(Place(-APART, steps) for steps in range(-5, 6)),
        *(Place(APART + FAR * far, steps) for far in (1, 2, 3) for steps in range(-8, 9, 2)),
    ),
    key=lambda place: (place.distance, -place.steps),
)
"""The nearest first; among equals the upper one."""

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


class _Panel:
    """A panel at one width, in pixels: its lines as segments, and the names that it has."""

    def __init__(self, strokes: Sequence[Stroke], room: Room) -> None:
        self.room, self.boxes = room, list[_Box]()
        ends = [
            (*start, *end)
            for stroke in strokes
            for start, end in zip(stroke.points, stroke.points[1:] or stroke.points, strict=False)
        ]
        sides = np.array([room.width, room.height] * 2)
        x1, y1, x2, y2 = (np.array(ends).reshape(-1, 4) * sides).T
        self._left, self._right = np.minimum(x1, x2), np.maximum(x1, x2)
        self._lower, self._upper = np.minimum(y1, y2), np.maximum(y1, y2)
        self._ends = x1, y1, x2, y2
        is_upright = x1 == x2
        self._slope = np.where(is_upright, 0.0, (y2 - y1) / np.where(is_upright, 1.0, x2 - x1))
        self._x, self._y, self._is_upright = x1, y1, is_upright

    def has_room(self, box: _Box) -> bool:
        """Whether a name there would cover no line and no other name, and stay in the panel."""
        inside = box.left >= 0 and box.right <= self.room.width + self.room.beside
        inside = inside and box.bottom >= 2 and box.top <= self.room.top * self.room.height
        if not inside or any(_overlap(box, other) for other in self.boxes):
            return False
        left, right = np.maximum(box.left, self._left), np.minimum(box.right, self._right)
        at_left = self._y + self._slope * (left - self._x)
        at_right = self._y + self._slope * (right - self._x)
        low = np.where(self._is_upright, self._lower, np.minimum(at_left, at_right))
        high = np.where(self._is_upright, self._upper, np.maximum(at_left, at_right))
        return not bool(((left <= right) & (low < box.top) & (high > box.bottom)).any())

    def is_crossed(self, stroke: Stroke, place: Place) -> bool:
        """Whether a line from the stroke's end to a name there would cross one of the panel."""
        x, y = (
            share * side for share, side in zip(stroke.points[-1], self.room[2:4], strict=True)
        )
        # The first part of it lies in the stroke's own point.
        start = x + 0.3 * place.across, y + 0.3 * place.steps * HIGH
        end = x + place.across, y + place.steps * HIGH
        x1, y1, x2, y2 = self._ends
        sides = _side(*start, *end, x1, y1) * _side(*start, *end, x2, y2)
        others = _side(x1, y1, x2, y2, *start) * _side(x1, y1, x2, y2, *end)
        return bool(((sides < 0) & (others < 0)).any())


def _side(x1: Any, y1: Any, x2: Any, y2: Any, x: Any, y: Any) -> Any:
    """On which side of a line through two points another one is, by its sign."""
    return np.sign((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1))


def line_ends(strokes: Sequence[Stroke], room: Room, theme: Theme) -> Names:
    """An annotation for each named stroke that has room for it; the first to come chooses first.

    A name stands right of the last point, or near it with a thin line to it, which crosses none
    where that can be; it covers no other stroke and no other name.
    """
    lines = [stroke for stroke in strokes if stroke.name and stroke.points]
    if len(lines) > MOST_NAMED:
        return Names([], MARGIN)
    panels = [_Panel(strokes, room._replace(width=room.width * wider)) for wider in WIDER]
    notes = []
    for stroke in lines:
        place = _first_place(stroke, panels)
        if place is not None:
            for panel in panels:
                panel.boxes.append(_box(stroke, place, panel.room))
            notes.append(_note(stroke, place, room, theme))
    beyond = max((box.right for box in panels[0].boxes), default=0.0) - room.width
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


def _box(stroke: Stroke, place: Place, room: Room) -> _Box:
    x, y = stroke.points[-1]
    near, middle = x * room.width + place.across, y * room.height + place.steps * HIGH
    far = near + math.copysign(LETTER * len(stroke.name), place.across)
    return _Box(min(near, far), middle - HIGH / 2, max(near, far), middle + HIGH / 2)


def _first_place(stroke: Stroke, panels: Sequence[_Panel]) -> Place | None:
    """The nearest place that has room: one with a clear line to it, unless that is a step of FAR
    farther off than another.
    """
    nearest = None
    for place in PLACES:
        if nearest is not None and place.distance > nearest.distance + FAR:
            break
        if _is_free(stroke, place, panels):
            if not any(panel.is_crossed(stroke, place) for panel in panels):
                return place
            nearest = nearest or place
    return nearest


def _is_free(stroke: Stroke, place: Place, panels: Sequence[_Panel]) -> bool:
    return all(panel.has_room(_box(stroke, place, panel.room)) for panel in panels)


def _overlap(one: _Box, other: _Box) -> bool:
    apart = one.right < other.left or other.right < one.left
    return not apart and one.bottom < other.top and other.bottom < one.top


def _note(stroke: Stroke, place: Place, room: Room, theme: Theme) -> dict[str, Any]:
    x, y = stroke.end
    color = theme.words(stroke.color)
    away = (
        {
            "showarrow": True,
            "arrowhead": 0,
            "arrowwidth": 1,
            "arrowcolor": color,
            "standoff": 5,
            "ax": place.across,
            "ay": -place.steps * HIGH,
        }
        if place != PLACES[0]
        else {"showarrow": False, "xshift": APART}
    )
    return {
        "name": LINE_END,
        "text": stroke.name,
        "xref": room.x_ref,
        "yref": room.y_ref,
        "x": x,
        "y": y,
        "xanchor": "left" if place.across > 0 else "right",
        "yanchor": "middle",
        "font": {"size": 12, "color": color},
        **away,
    }
