"""The parameters of a traced workload, in order and by component."""

from collections.abc import Mapping
from types import MappingProxyType

from workbench.lvlm.optimizers.mixed_precision import layer_matrices
from workbench.lvlm.weights.packed import Packed
from workbench.lvlm.workload import Workload
from workbench.probe.counting.states import Parameter


def parameters_of(
    workload: Workload,
    repeated: Mapping[int, int] = MappingProxyType({}),
    backward: bool = False,
) -> tuple[Parameter, ...]:
    """Every parameter, in order; a run of those whose ids are ``repeated`` stands so many times.

    Packed matrices come last. ``backward``: it has been, so that a parameter that has no gradient
    gets none; deepspeed's optimizers have states of all that are trained.
    """
    alone = backward and not workload.cell.under_deepspeed
    component_of, of_layers = workload.component_of(), layer_matrices(workload.module)
    listed: list[Parameter] = []
    run: list[Parameter] = []
    times = 1
    for parameter in workload.module.parameters():
        width = parameter.element_size()
        entry = Parameter(
            component_of[id(parameter)],
            parameter.numel(),
            parameter.requires_grad,
            None if width == workload.context.dtype.itemsize else parameter.nbytes,
            tuple(parameter.shape),
            id(parameter) in of_layers,
            parameter.grad is not None or not alone,
        )
        if id(parameter) in repeated:
            run.append(entry)
            times = repeated[id(parameter)]
            continue
        listed += run * times
        run = []
        listed.append(entry)
    packed = [m for m in workload.module.modules() if isinstance(m, Packed)]
    matrices = (
        Parameter("decoder", m.numel, False, m.nbytes)
        for m in packed
        for _ in range(repeated.get(id(m), 1))
    )
    return (*listed, *run * times, *matrices)


def params_by_component(workload: Workload, params: int) -> dict[str, int]:
    """Parameters of each component, the decoder's are the rest; empty where there is one alone."""
    if not workload.modules:
        return {}
    sizes = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in workload.modules.items()
        if name != "decoder"
    }
    return {**sizes, "decoder": params - sum(sizes.values())}
