"""Scope ``layer``: one real decoder layer; a train pass is forward and backward, no optimizer."""

from workbench.lvlm.attention import System
from workbench.lvlm.context import Context
from workbench.lvlm.layers import Checkpointed, make_layer, parts_of, random_tensor
from workbench.lvlm.scopes import SCOPES
from workbench.lvlm.workload import Workload
from workbench.vocabulary.cell import Cell


def _layer_scope(cell: Cell, system: System, context: Context) -> Workload:
    model = context.model
    place = system.single(model, context.places, cell.layer)
    parts = parts_of(model, make_layer(model, place, context), place, system, context)
    module = system.layer(parts, context, place)
    if cell.checkpoint:
        module = Checkpointed(module)
    train = cell.pass_ == "train"
    entering, leaving = system.layer_states(parts, place, cell)
    inputs = [random_tensor(shape, context, grad=train) for shape in entering]
    upstream = [random_tensor(shape, context) for shape in leaving] if train else []
    return Workload(
        cell=cell,
        system=system,
        context=context,
        module=module,
        inputs=inputs,
        forward=lambda: module(*inputs),
        layers=[(parts, place, 1)],
        upstream=upstream,
    )


SCOPES.add("layer", _layer_scope)
