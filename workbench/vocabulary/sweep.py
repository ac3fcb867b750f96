"""A Sweep: the grids of cells to visit, each with whether to measure or predict it, on what."""

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from functools import cached_property
from itertools import product
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from workbench.collector import without_collector
from workbench.vocabulary.cell import FIELDS, Cell
from workbench.vocabulary.errors import MOST_FAULTS, WrongField
from workbench.vocabulary.fields import (
    SWEEP_PATTERN,
    Count,
    Dtype,
    Name,
    Pass,
    Place,
    Positive,
    Request,
    Scope,
    Source,
    fault_words,
    make_model,
)
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.rules import Ruled, with_wrong

MAX_POINTS = 100_000
"""The most cells of a sweep: to make them takes some 6 s and 0.8 GB."""
AXES = (
    "models",
    "scopes",
    "passes",
    "dtypes",
    "text",
    "batches",
    "attentions",
    "kernels",
    "options",
    "visual",
)
"""The axes of a grid, outermost first."""
SINGULAR = {
    "model": "models",
    "scope": "scopes",
    "pass": "passes",
    "dtype": "dtypes",
    "batch": "batches",
    "attention": "attentions",
    "kernel": "kernels",
}
"""An axis may go by the name of the cell's field that it sets."""
_ATTRIBUTES = {
    **{axis: "pass_" if name == "pass" else name for name, axis in SINGULAR.items()},
    "text": "num_text",
    "visual": "num_visual",
}
"""The attribute of a cell that each axis sets."""
_OF_AXES = {*SINGULAR, "num_text", "num_visual"}
RENAMED = {"set": "settings"}
"""Fields of a cell that a grid may call by the name of their option as well."""
CELL_FIELDS = tuple(name for name in FIELDS if name not in _OF_AXES)
"""Fields of a cell that no axis sets: in a grid they hold for every cell of it."""


class Point(Request):
    """A cell, whether to measure or predict it, on what, and how."""

    cell: Cell
    source: Source
    device: Name
    protocol: Protocol = Protocol()
    calibration: Name | None = None
    """Predicted: a file of ``workbench calibrate``, or ``none``; without it a packaged one."""
    pictures: Pictures | None = None

    @property
    def ranks(self) -> int:
        """Processes that measure it together: one where a rank is emulated."""
        alone = self.source == "predicted" or self.protocol.emulate is not None
        return 1 if alone else self.cell.world_size

    @property
    def through_launcher(self) -> bool:
        """Whether ranks under deepspeed measure it, be it one: in processes of their own."""
        alone = self.source == "predicted" or self.protocol.emulate is not None
        return not alone and self.cell.under_deepspeed


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, int, float, dict)) else value


class Grid(Ruled):
    """A product of axes: every combination becomes a cell.

    ``options`` are partial cells laid over each combination. ``options: [{attention: s_attn,
    kernel: eager}, {attention: d_attn, fold: true}]`` names systems that are no product of axes.
    Fields of a cell beside them, as in ``chunk: 8k``, are laid under each of ``options``.
    """

    STAND_INS: ClassVar[dict[str, Any]] = {"visual": (1,)}

    source: Source = "measured"
    device: Name = "auto"
    """Measured: auto (CUDA where there is one), cpu, cuda, cuda:N. Predicted: a device entry."""
    visual: tuple[Count, ...] = Field(min_length=1)
    models: tuple[Name, ...] = ("mistral-7b-v0.3",)
    attentions: tuple[Name, ...] = ("s_attn",)
    kernels: tuple[Name, ...] = ("sdpa",)
    scopes: tuple[Scope, ...] = ("layer",)
    passes: tuple[Pass, ...] = ("forward",)
    text: tuple[Count, ...] = (64,)
    batches: tuple[Positive, ...] = (1,)
    dtypes: tuple[Dtype, ...] = ("bfloat16",)
    options: tuple[dict[str, Any], ...] = ({},)
    protocol: Protocol = Protocol()
    calibration: Name | None = None
    """Predicted: a file of ``workbench calibrate``, or ``none``; without it a packaged one."""

    @model_validator(mode="before")
    @classmethod
    def _axes_by_the_cells_names(cls, data: Any) -> Any:
        return _by_axes(data)

    @classmethod
    def part_of(cls, fields: Any, wrong: Iterable[str] = ()) -> Self | None:
        """As of every document; fields may go by the names of a cell's."""
        try:
            by_axes = _by_axes(fields)
        except ValueError:
            return None
        return super().part_of(by_axes, wrong)

    @field_validator(*AXES, mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return _as_tuple(value)

    _firsts: list[Cell] = PrivateAttr(default=[])

    @model_validator(mode="after")
    def _few_enough(self) -> Self:
        if not all(self.axes()):
            raise ValueError("an axis is empty: every axis needs at least one value")
        _check_size(self)
        return self

    @classmethod
    def broken(cls, document: Any) -> list[str]:
        """What is wrong with its cells; those of a whole grid are kept to make its points of."""
        with without_collector():
            firsts, faults = _first_cells(document)
        if isinstance(document, cls) and not faults:
            document._firsts = firsts
        return faults

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with changes, validated again: the points of the one are not the other's."""
        copy = type(self).model_validate({**dict(self), **(update or {})})
        return deepcopy(copy) if deep else copy

    def axes(self) -> tuple[tuple[Any, ...], ...]:
        """The values of each of AXES."""
        return tuple(getattr(self, name) for name in AXES)

    def points(self) -> tuple[Point, ...]:
        """Every point, |V| innermost, in the order that the axes are written."""
        return self._points

    def heads(self) -> Iterator[Point]:
        """A point of each combination of names and options, whatever its |V|."""
        return map(self._point, self._firsts)

    @cached_property
    def _points(self) -> tuple[Point, ...]:
        with without_collector():
            return tuple(self._point(f.at(size)) for f in self._firsts for size in self.visual)

    def _point(self, cell: Cell) -> Point:
        return Point(
            cell=cell,
            source=self.source,
            device=self.device,
            protocol=self.protocol,
            calibration=self.calibration,
        )


def combinations(grid: Grid) -> tuple[Iterator[dict[str, Any]], frozenset[str]]:
    """The fields of the smallest cell of each combination of a grid, and which only stand in.

    Those stand in for an axis that has a wrong value; of wrong ``options`` there is no cell.
    """
    names = ("model", "scope", "pass", "dtype", "num_text", "batch", "attention", "kernel")
    values, wrong = [], set[str]()
    for axis in AXES:
        try:
            values.append(getattr(grid, axis))
        except WrongField:
            if axis == "options":
                return iter(()), frozenset()
            values.append(Grid.STAND_INS.get(axis, Grid.model_fields[axis].default))
            wrong.add(_ATTRIBUTES[axis])
    *outer, visual = values
    cells = (
        {**dict(zip(names, combined, strict=True)), **options, "num_visual": min(visual)}
        for *combined, options in product(*outer)
    )
    return cells, frozenset(wrong)


def _first_cells(grid: Grid) -> tuple[list[Cell], list[str]]:
    """The smallest cell of each combination of a grid, and every fault of their fields."""
    cells, faults = list[Cell](), dict[str, None]()
    if any("num_visual" in options for options in _readable(grid, "options")):
        faults["num_visual: is no option of a cell here; 'visual' says it"] = None
    documents, wrong = combinations(grid)
    for fields in documents:
        try:
            cells.append(Cell.model_validate(fields, context=with_wrong(wrong)))
        except ValidationError as error:
            faults |= dict.fromkeys(fault_words(error, (*FIELDS, *RENAMED)))
        if len(faults) > MOST_FAULTS:
            break
    return cells, list(faults)


def _readable(grid: Grid, name: str) -> tuple[Any, ...]:
    """The values of an axis; none where one of them is wrong."""
    try:
        return tuple(getattr(grid, name))
    except WrongField:
        return ()


def _by_axes(data: Any) -> Any:
    """A grid's document by the names of its own fields; ValueError where one is given twice."""
    return _with_options(_in_plural(data)) if isinstance(data, dict) else data


def _with_options(fields: dict[str, Any]) -> dict[str, Any]:
    """A grid's document whose fields of a cell stand among its ``options``."""
    of_cell = {name: value for name, value in fields.items() if name in (*CELL_FIELDS, *RENAMED)}
    rest = {name: value for name, value in fields.items() if name not in of_cell}
    options = _as_tuple(fields.get("options", ({},)))
    if not isinstance(options, (list, tuple)) or not all(isinstance(o, dict) for o in options):
        return rest  # Its type is wrong, and that is told.
    for option in (fields, *options):
        twice = [name for name, field in RENAMED.items() if name in option and field in option]
        if twice:
            raise ValueError(f"{twice[0]}: given beside {RENAMED[twice[0]]}; leave one out")
    laid = [
        {RENAMED.get(name, name): value for name, value in {**of_cell, **each}.items()}
        for each in options
    ]
    return {**rest, "options": laid}


def _in_plural(fields: dict[str, Any]) -> dict[str, Any]:
    """A grid's document whose axes go by the names of AXES; ValueError for one given twice."""
    twice = [name for name, axis in SINGULAR.items() if name in fields and axis in fields]
    if twice:
        raise ValueError(f"{twice[0]}: given beside {SINGULAR[twice[0]]}; leave one out")
    return {SINGULAR.get(name, name): value for name, value in fields.items()}


def _check_size(*grids: Any) -> None:
    """Raise ValueError where grids, or the documents of grids, would make too many cells."""
    total = 0
    for grid in grids:
        fields = vars(grid) if isinstance(grid, Grid) else {}
        fields = _in_plural(grid) if isinstance(grid, dict) else fields
        values = [fields.get(name) for name in AXES]
        total += math.prod(len(v) if isinstance(v, (list, tuple)) else 1 for v in values)
    if total > MAX_POINTS:
        raise ValueError(f"the axes make {total:,} cells; a sweep has at most {MAX_POINTS:,}")


class Sweep(Request):
    """A named union of grids. Runs of the same name in one store and environment are continued."""

    name: Annotated[str, StringConstraints(pattern=SWEEP_PATTERN)]
    grids: tuple[Grid, ...] = Field(min_length=1)
    max_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of a call at most: cells that would end later are dropped, and that is said."""

    @field_validator("grids", mode="before")
    @classmethod
    def _few_enough(cls, value: Any) -> Any:
        _check_size(*(value if isinstance(value, (list, tuple)) else ()))
        return value

    def points(self) -> list[Point]:
        """The points of all grids, each (key, source, device) once, in order."""
        by_key: dict[tuple[str, str, str], Point] = {}
        for grid in self.grids:
            for point in grid.points():
                by_key.setdefault((point.cell.key, point.source, point.device), point)
        return list(by_key.values())

    def replace(self, **changes: Any) -> Self:
        """A copy with ``changes``, validated again."""
        return make_model(type(self), {**self.model_dump(by_alias=True), **changes})


def make_point(**fields: Any) -> Point:
    """A Point from public field names; RequestError has a line for each wrong value."""
    return make_model(Point, fields, _point_place)


def _point_place(place: Place) -> str:
    """Where a fault of a point is: a protocol's fields go by their own names."""
    return ".".join(map(str, place[1:] if place[:1] == ("protocol",) else place))


def geometric(start: int, stop: int, factor: int = 2) -> tuple[int, ...]:
    """``start``, ``start * factor``, … up to and including ``stop``."""
    if start < 1 or factor < 2:
        raise ValueError("start must be at least 1 and factor at least 2")
    values = []
    while start <= stop:
        values.append(start)
        start *= factor
    return tuple(values)
