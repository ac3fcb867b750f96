"""The layers and tokens of a cell's decoder, told without building any of them."""

from collections.abc import Hashable
from dataclasses import replace

from workbench.lvlm.attention import system_of
from workbench.lvlm.attention.linear import system_on
from workbench.lvlm.kinds import Stretch, layer_kinds, stretch_of
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import Resolved, resolve
from workbench.lvlm.pictures import look
from workbench.lvlm.place import Place
from workbench.lvlm.reduce import (
    TokenGrid,
    entering_layout,
    reduced_layout,
    reduced_segments,
    reducer_of,
)
from workbench.lvlm.scopes import SCOPES, VISUAL_UNITS
from workbench.lvlm.towers import tower_of
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.pictures import Pictures


def decoder_layout(cell: Cell, model: Resolved, pictures: Pictures | None = None) -> Layout:
    """Where the tokens stand that enter the decoder: those that a reducer leaves, if there is one.

    Raises RequestError where the reducer does not serve the images.
    """
    own = system_of(cell, model).pooling()
    if own is not None and cell.num_visual:
        if cell.scope == "lvlm":
            return reduced_layout(Layout.of(cell), own, token_grids(cell, model, pictures))
        return reduced_segments(entering_layout(cell), own)
    reducer = reducer_of(cell)
    if reducer is None or cell.scope != "lvlm" or not cell.num_visual:
        return entering_layout(cell)
    return reduced_layout(Layout.of(cell), reducer, token_grids(cell, model, pictures))


def token_grids(
    cell: Cell, model: Resolved, pictures: Pictures | None = None
) -> tuple[TokenGrid, ...]:
    """The tokens of every image and frame of one sample, as the tower delivers them."""
    limits = None if pictures is None else pictures.limits
    tower = tower_of(model, cell.tower, limits)
    grids = tower.grids(cell.num_visual) if pictures is None else look(tower, pictures).grids
    return tower.token_grids(grids)


def places_of(cell: Cell) -> tuple[Place, ...]:
    """Every layer of a cell's decoder, in the order in which it runs them."""
    model = resolve(cell.model)
    places = system_on(cell, model).places(model, cell, decoder_layout(cell, model))
    return with_stacked(cell, model, places)


def with_stacked(cell: Cell, model: Resolved, places: tuple[Place, ...]) -> tuple[Place, ...]:
    """The places, some of which take features of the tower where it gives any (deepstack).

    Raises Unsupported where system, reducer or checkpoints leave no such rows between layers.
    """
    if cell.scope != "lvlm" or cell.pass_ == "decode" or not cell.num_visual:
        return places
    tower = tower_of(model, cell.tower)
    if not tower.stacked:
        return places
    after = ", ".join(map(str, sorted(tower.stacked)))
    adds = (
        f"the tower of {tower.front_end} adds features to every visual row after layers {after} "
    )
    adds += "(deepstack)"
    system, reducer = system_of(cell, model), reducer_of(cell)
    if not system.stacks:
        raise Unsupported(f"{system.name}: {adds}, and {system.name} has no such rows there")
    if reducer is not None:
        raise Unsupported(f"reducer {reducer.name}: {adds}, and those of fewer rows are not known")
    if cell.checkpoint and (cell.checkpoint_every or 1) > 1:
        raise Unsupported(
            f"checkpoint_every {cell.checkpoint_every}: {adds}, and a checkpoint of several "
            "layers has no place for them; use 1"
        )
    return tuple(replace(p, stacked=not p.inserted and p.index in tower.stacked) for p in places)


def kinds_of(cell: Cell) -> tuple[Hashable, ...]:
    """The kind of each of ``places_of``; equal kinds are alike in all costs."""
    return layer_kinds(resolve(cell.model), places_of(cell))


def repeated_layers(cell: Cell) -> Stretch:
    """Where the layers of a cell's decoder repeat, in whole groups of those under a checkpoint."""
    grouped = (cell.checkpoint_every or 1) if cell.checkpoint else 1
    return stretch_of(kinds_of(cell), grouped)


def visual_unit(cell: Cell) -> int:
    """|V| of a cell like this one is a multiple of the result: at scope lvlm of an image.

    Of ranks that share a sequence it is of their shares, where |T| is a multiple of those too.
    """
    SCOPES[cell.scope]  # Its file says so.
    shares = cell.sharing * (1 if cell.ring == 1 else 2)
    if shares > 1 and system_of(cell).ring == "rows" and cell.num_text % shares == 0:
        return shares
    unit = VISUAL_UNITS.get(cell.scope)
    return 1 if unit is None else unit(cell)
