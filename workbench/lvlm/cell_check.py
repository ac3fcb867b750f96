"""Whether a cell can be: its names, options and what they ask of its model. Builds nothing."""

from workbench.lvlm.attention import system_of
from workbench.lvlm.attention.linear import has_linear
from workbench.lvlm.checkpoints import check_source
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import resolve
from workbench.lvlm.names import check_names
from workbench.lvlm.optimizers import OPTIMIZERS
from workbench.lvlm.places import places_of
from workbench.lvlm.reduce import (
    Reducer,
    reducer_of,
)
from workbench.lvlm.ring_check import check_ring
from workbench.lvlm.ulysses import check_ulysses
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError, Unsupported


def check(cell: Cell) -> None:
    """Raise RequestError for any name or option of the cell that cannot be; builds nothing.

    Of unknown names all are told at once.
    """
    check_names(cell)
    system_of(cell).check(cell)
    check_optimizer(cell)
    try:
        _ = Layout.of(cell).segments
    except ValueError as error:
        raise RequestError(f"layout: {error}") from None
    if cell.offload:
        check_offload(cell)
    reducer = reducer_of(cell)
    if reducer is not None:
        check_reducer(cell, reducer)
    if cell.visual_positions and cell.scope != "lvlm":
        raise RequestError(
            f"visual_positions: scope {cell.scope} has no visual embeddings to learn; use lvlm"
        )
    if cell.weights is not None:
        check_source(cell.weights)
    model = resolve(cell.model)
    system_of(cell, model).check(cell)
    if cell.sharing > 1 and has_linear(model):
        axis = "ulysses" if cell.ring == 1 else "ring"
        raise Unsupported(
            f"{axis}: most layers of {cell.model} are linear, and ranks that share a sequence do "
            "not pass the state on that these carry along it"
        )
    check_ring(cell, model)
    check_ulysses(cell, model)
    if cell.layer is not None:
        count = len(places_of(cell))
        if cell.layer >= count:
            raise RequestError(
                f"layer {cell.layer}: {cell.model} has {count} layers, 0 to {count - 1}"
            )


def check_optimizer(cell: Cell) -> None:
    """Raise RequestError for an unknown optimizer, or one that does not take the cell's dtype."""
    rule = OPTIMIZERS[cell.optimizer]
    if cell.dtype not in rule.dtypes:
        raise RequestError(
            f"optimizer {rule.name}: takes {', '.join(rule.dtypes)}, not dtype {cell.dtype}"
        )


def check_reducer(cell: Cell, reducer: Reducer) -> None:
    """Raise RequestError where nothing stands before the decoder for it to reduce."""
    if cell.scope == "layer":
        raise RequestError(
            f"reduce {reducer.name}: a single layer has no tokens before the decoder; use scope "
            "decoder or lvlm"
        )
    if cell.sharing > 1:
        axis = "ulysses" if cell.ring == 1 else "ring"
        raise RequestError(f"reduce {reducer.name}: {axis} shares a sequence that is not reduced")
    reducer.check(cell)


def check_offload(cell: Cell) -> None:
    """Raise RequestError where there are no checkpointed activations to take away."""
    if cell.pass_ != "train":
        raise RequestError(f"offload: pass {cell.pass_} keeps nothing for a backward; use train")
    if not cell.checkpoint:
        raise RequestError("offload: moves what checkpoints keep; needs checkpoint as well")
    if cell.scope == "layer":
        raise RequestError(
            "offload: a single layer's inputs are held from outside, so nothing could leave the "
            "device; use scope decoder or lvlm"
        )
