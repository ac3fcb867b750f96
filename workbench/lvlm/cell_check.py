"""Whether a cell can be: its names, options and what they ask of its model. Builds nothing."""

from workbench.lvlm.attention import SYSTEMS, system_of
from workbench.lvlm.attention.linear import has_linear
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import Resolved, resolve
from workbench.lvlm.names import NAMED, unknown_names
from workbench.lvlm.optimizers import OPTIMIZERS
from workbench.lvlm.places import places_of
from workbench.lvlm.reduce import (
    Reducer,
    reducer_of,
)
from workbench.lvlm.sharing.ring_check import check_ring
from workbench.lvlm.sharing.ulysses import check_ulysses
from workbench.lvlm.weights.checkpoints import check_source
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Faults, RequestError, Unsupported


def check(cell: Cell) -> None:
    """Raise RequestError for all that cannot be of the cell; builds nothing.

    Raises Unsupported where nothing is wrong with it and its model has no place for it.
    """
    faults = Faults()
    for field in NAMED:
        with faults:
            faults.add(*unknown_names({field: getattr(cell, field)}))
    with faults:
        check_layout(cell)
    has_model = not faults
    with faults:
        system_of(cell).check(cell)
    with faults:
        check_optimizer(cell)
    with faults:
        check_offload(cell)
    with faults:
        check_reducer(cell, reducer_of(cell))
    with faults:
        check_positions(cell)
    with faults:
        if cell.weights is not None:
            check_source(cell.weights)
    with faults:
        if has_model:
            check_on_model(cell, resolve(cell.model))
    faults.raise_all()


def check_on_model(cell: Cell, model: Resolved) -> None:
    """Raise RequestError or Unsupported for what the cell asks of that model."""
    faults = Faults()
    with faults:
        system_of(cell, model).check(cell)
    if cell.sharing > 1 and has_linear(model):
        axis = "ulysses" if cell.ring == 1 else "ring"
        faults.raise_all()
        raise Unsupported(
            f"{axis}: most layers of {cell.model} are linear, and ranks that share a sequence do "
            "not pass the state on that these carry along it"
        )
    with faults:
        check_latents(cell, model)
    with faults:
        check_ring(cell, model)
    with faults:
        check_ulysses(cell, model)
    faults.raise_all()
    if cell.layer is not None:
        count = len(places_of(cell))
        if cell.layer >= count:
            raise RequestError(
                f"layer {cell.layer}: {cell.model} has {count} layers, 0 to {count - 1}"
            )


def check_latents(cell: Cell, model: Resolved) -> None:
    """Raise RequestError where ranks would pass on a sequence whose keys are made of latents."""
    if not model.family.latent:
        return
    # What has all text on every rank passes no keys on.
    own_keys = SYSTEMS[cell.attention].ring == "text"
    for field in ("ulysses", "ring"):
        if getattr(cell, field) > 1 and not (own_keys and field == "ring"):
            raise RequestError(
                f"{field} {getattr(cell, field)}: keys and values of {cell.model} are made of "
                "latents, which no form of sharing a sequence here passes on; use 1"
            )


def check_layout(cell: Cell) -> None:
    """Raise RequestError where the sizes of the layout's segments do not add up."""
    try:
        _ = Layout.of(cell).segments
    except ValueError as error:
        raise RequestError(f"layout: {error}") from None


def check_positions(cell: Cell) -> None:
    """Raise RequestError where no visual embeddings enter that could have learnt positions."""
    if cell.visual_positions and cell.scope != "lvlm":
        raise RequestError(
            f"visual_positions: scope {cell.scope} has no visual embeddings to learn; use lvlm"
        )


def check_optimizer(cell: Cell) -> None:
    """Raise RequestError for an unknown optimizer, or one that does not take the cell's dtype."""
    rule = OPTIMIZERS[cell.optimizer]
    if cell.dtype not in rule.dtypes:
        raise RequestError(
            f"optimizer {rule.name}: takes {', '.join(rule.dtypes)}, not dtype {cell.dtype}"
        )


def check_reducer(cell: Cell, reducer: Reducer | None) -> None:
    """Raise RequestError where nothing stands before the decoder for it to reduce."""
    if reducer is None:
        return
    faults = Faults()
    if cell.scope == "layer":
        faults.add(
            f"reduce {reducer.name}: a single layer has no tokens before the decoder; use scope "
            "decoder or lvlm"
        )
    if cell.sharing > 1:
        axis = "ulysses" if cell.ring == 1 else "ring"
        faults.add(f"reduce {reducer.name}: {axis} shares a sequence that is not reduced")
    with faults:
        reducer.check(cell)
    faults.raise_all()


def check_offload(cell: Cell) -> None:
    """Raise RequestError where there are no checkpointed activations to take away."""
    if not cell.offload:
        return
    faults = Faults()
    with faults:
        if cell.pass_ != "train":
            faults.add(f"offload: pass {cell.pass_} keeps nothing for a backward; use train")
    with faults:
        if not cell.checkpoint:
            faults.add("offload: moves what checkpoints keep; needs checkpoint as well")
    with faults:
        if cell.scope == "layer":
            faults.add(
                "offload: a single layer's inputs are held from outside, so nothing could leave "
                "the device; use scope decoder or lvlm"
            )
    faults.raise_all()
