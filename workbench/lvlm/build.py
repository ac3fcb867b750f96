"""Cell -> Workload: the module, its inputs and one iteration. Names are resolved only here.

A predicted and a measured cell are built by the same code; they differ in how they are executed.
"""

from collections.abc import Sequence

import torch

from workbench.lvlm.attention import System
from workbench.lvlm.attention.linear import system_on
from workbench.lvlm.caches.narrow import cache_flags
from workbench.lvlm.cell_check import check
from workbench.lvlm.context import DTYPES, Context
from workbench.lvlm.kernels import KERNELS, Kernel
from workbench.lvlm.kernels.fused import Fused
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import Resolved, resolve
from workbench.lvlm.offload import Offload
from workbench.lvlm.places import decoder_layout, with_stacked
from workbench.lvlm.scopes import SCOPES
from workbench.lvlm.sharing import Shard, own_layout
from workbench.lvlm.sharing.ring import gathering, over_rows
from workbench.lvlm.sharing.ring_link import link_of
from workbench.lvlm.sharing.ulysses import over_heads
from workbench.lvlm.weights.lora import add_adapters
from workbench.lvlm.weights.packed import pack
from workbench.lvlm.workload import Workload
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures

EXPERTS = "grouped_mm"
"""transformers' word for the experts of a layer as one call: torch's grouped matmul."""


def build(
    cell: Cell,
    device: torch.device | str = "cpu",
    chosen: Sequence[int] | None = None,
    pictures: Pictures | None = None,
    shared: bool = False,
) -> Workload:
    """The workload of a cell on a device; under FakeTensorMode nothing is allocated.

    Raises RequestError for unknown names and options, Unsupported where the kernel cannot serve
    the family (the reason names both). ``chosen`` are the layers of a decoder to build, counted as
    it runs them; None builds all. ``pictures`` are shown instead of random pixels; ``shared`` lets
    layers of one kind have the same weights.
    """
    check(cell)
    model = resolve(cell.model)
    system, kernel = system_on(cell, model), KERNELS[cell.kernel]
    model.config._attn_implementation = kernel.implementation(tracing(torch.device(device)))
    experts = model.family.experts(model.config)
    if experts is not None and not experts.every:
        # As transformers' own models choose it, and refuse it where they have no experts.
        model.config._experts_implementation = EXPERTS
    layout = decoder_layout(cell, model, pictures)
    if cell.sharing > 1:
        layout = own_layout(cell, torch.device(device))
        kernel = share(cell, model, system, layout, tracing(torch.device(device)))
    places = with_stacked(cell, model, system.places(model, cell, layout))
    context = Context(
        cell=cell,
        layout=layout,
        places=places if chosen is None else tuple(places[i] for i in chosen),
        kernel=kernel,
        model=model,
        device=torch.device(device),
        dtype=DTYPES[cell.dtype],
        pictures=pictures,
        offload=Offload(torch.device(device), system.shared_states) if cell.offload else None,
        shared=shared,
    )
    workload = SCOPES[cell.scope](cell, system, context)
    if cell.experts_skew and all(parts.experts is None for parts, _, _ in workload.layers):
        raise RequestError(f"experts_skew: {cell.model} has no experts")
    freeze(workload)
    if cell.weights_dtype is not None:
        pack(workload, cell.weights_dtype, light=tracing(context.device))
    lora = cell.lora_adapters
    if lora is not None:
        dtype = DTYPES[lora.dtype or cell.dtype]
        add_adapters(workload, lora, dtype, light=tracing(context.device))
    context.flags += cache_flags(cell)
    context.loaded = None  # Copied: a second set of weights would be measured too.
    workload.guard = kernel.context
    return workload


SHARED = "workbench_shared"
"""transformers' word for attention between ranks that share a sequence, once registered."""


def share(cell: Cell, model: Resolved, system: System, layout: Layout, traced: bool) -> Kernel:
    """The kernel of a rank that shares a sequence; its model's layers attend with the others.

    ``check`` has been asked.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    kernel, config = KERNELS[cell.kernel], model.config
    number = layout.ring[0] if isinstance(layout, Shard) else 0
    if system.ring == "text":
        assert isinstance(kernel, Fused), "check_ring has asked"
        return gathering(kernel, link_of(cell, number, traced))
    attention = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
    if cell.ring > 1:
        assert isinstance(kernel, Fused), "check_ring has asked"
        attention = over_rows(cell, kernel, number, traced)
    if cell.ulysses > 1:
        attention = over_heads(attention, cell, config, traced)
    ALL_ATTENTION_FUNCTIONS.register(SHARED, attention)
    config._attn_implementation = SHARED
    return kernel


def freeze(workload: Workload) -> None:
    """Take the cell's ``frozen`` parts out of training; raises RequestError for unknown parts."""
    frozen = workload.cell.frozen_parts
    for name in frozen:
        if name not in workload.modules:
            raise RequestError(
                f"frozen {name}: the parts of this model are {', '.join(sorted(workload.modules))}"
            )
        workload.modules[name].requires_grad_(False)
    if frozen and not workload.groups():
        raise RequestError(f"frozen {workload.cell.frozen}: nothing is left to train")
