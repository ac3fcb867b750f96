"""Cell -> Workload: the module, its inputs and one iteration. Names are resolved only here.

A predicted and a measured cell are built by the same code; they differ in how they are executed.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import System, system_of
from workbench.lvlm.attention.linear import has_linear, system_on
from workbench.lvlm.checkpoints import check_source
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import KERNELS, Kernel
from workbench.lvlm.kernels.fused import Fused
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.kinds import Stretch, layer_kinds, stretch_of
from workbench.lvlm.layout import Layout
from workbench.lvlm.lora import add_adapters
from workbench.lvlm.marks import region
from workbench.lvlm.models import Resolved, resolve
from workbench.lvlm.narrow_cache import cache_flags
from workbench.lvlm.offload import Offload
from workbench.lvlm.optimizer import MasterOptimizer, layer_matrices
from workbench.lvlm.optimizers import OPTIMIZERS
from workbench.lvlm.packed import Packed, pack
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.pictures import look
from workbench.lvlm.place import Place
from workbench.lvlm.reduce import (
    Reducer,
    TokenGrid,
    entering_layout,
    reduced_layout,
    reduced_segments,
    reducer_of,
)
from workbench.lvlm.ring import gathering, over_rows
from workbench.lvlm.ring_check import check_ring
from workbench.lvlm.ring_link import link_of
from workbench.lvlm.sharing import Shard, own_layout
from workbench.lvlm.towers import tower_of
from workbench.lvlm.training import Hyper, hyper_of
from workbench.lvlm.ulysses import check_ulysses, over_heads
from workbench.lvlm.weights import randomise
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.registry import Registry

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


EXPERTS = "grouped_mm"
"""transformers' word for the experts of a layer as one call: torch's grouped matmul."""


@dataclass
class Workload:
    """What one cell runs. ``step()`` is one iteration; nothing is allocated between iterations."""

    cell: Cell
    system: System
    context: Context
    module: nn.Module
    inputs: list[Tensor]
    forward: Callable[[], tuple[Tensor, ...]]
    layers: list[tuple[LayerParts, Place, int]]
    """Parts and place of each layer that is built, and how many layers it stands for."""
    head_flops: int = 0
    """Matmul FLOPs of a forward outside the layers."""
    outside_flops: dict[str, int] = field(default_factory=dict)
    """Matmul FLOPs of a forward of what stands before the decoder, by part: tower, adapter."""
    leaf_flops: int = 0
    """Those of ``outside_flops`` whose input needs no gradient: a backward has them once."""
    backward_flops: dict[str, int] = field(default_factory=dict)
    """Matmul FLOPs of a backward of such a part, where that is not two forwards."""
    modules: dict[str, nn.Module] = field(default_factory=dict)
    """The parts that parameters, FLOPs and time are split into, where there are several."""
    upstream: list[Tensor] = field(default_factory=list)
    """Gradients of the outputs, where a train pass has no loss of its own."""
    optimizer: MasterOptimizer | None = None
    """Only where the iteration ends in an optimizer step and is really run."""
    guard: Callable[[], AbstractContextManager[object]] = nullcontext

    def run_forward(self) -> tuple[Tensor, ...]:
        """The forward of this pass; gradients of the last iteration are dropped first."""
        self.clear()
        if self.cell.pass_ == "train":
            return self.forward()
        with torch.no_grad():
            return self.forward()

    def run_backward(self, outputs: tuple[Tensor, ...]) -> None:
        """Gradients of every weight and of the inputs."""
        differentiable = [o for o in outputs if o.requires_grad]
        torch.autograd.backward(differentiable, self.upstream or None)

    def run_optimizer(self) -> None:
        """The optimizer step, where the scope has one."""
        if self.optimizer is not None:
            with region("optimizer"):
                self.optimizer.step()

    def step(self) -> None:
        """One whole iteration."""
        outputs = self.run_forward()
        if self.cell.pass_ == "train":
            self.run_backward(outputs)
            del outputs
            for _ in range(self.cell.accumulate - 1):
                self.run_backward(self.forward())
            self.run_optimizer()

    def clear(self) -> None:
        """Drop the gradients of weights and inputs, and what the last prefill kept."""
        for kept in self.context.caches:
            kept.clear()
        for tensor in (*self.module.parameters(), *self.inputs):
            tensor.grad = None

    def held(self) -> list[Tensor]:
        """Every tensor that exists before the first iteration: weights, inputs, masks, tables."""
        return [tensor for tensors in self.held_by_kind().values() for tensor in tensors]

    def held_by_kind(self) -> dict[str, list[Tensor]]:
        """The same as weights, inputs (buffers too) and optimizer."""
        packed = [m for m in self.module.modules() if isinstance(m, Packed)]
        codes = {id(b): b for m in packed for b in m.buffers()}
        buffers = [b for b in self.module.buffers() if id(b) not in codes]
        return {
            "weights": [*self.module.parameters(), *codes.values()],
            "inputs": [*self.inputs, *self.upstream, *self.context.tensors(), *buffers],
            "optimizer": [] if self.optimizer is None else self.optimizer.tensors(),
        }

    @property
    def kv_cache_bytes(self) -> int:
        """Keys and values of every layer after all tokens: before the new one in a decode pass."""
        item = self.context.dtype.itemsize
        return sum(
            count * self.system.cache_bytes(parts, place, self.cell, item)
            for parts, place, count in self.layers
        )

    @property
    def hyper(self) -> Hyper:
        """How the cell's optimizer is set."""
        return hyper_of(self.cell, self.context.model.family.training)

    def component_of(self) -> dict[int, str]:
        """The component of each parameter, by its id; what is of none goes with the adapter."""
        if not self.modules:
            return {id(p): "decoder" for p in self.module.parameters()}
        parts = {id(p): "adapter" for p in self.module.parameters()}
        for name, module in self.modules.items():
            parts.update((id(p), name) for p in module.parameters())
        return parts

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that are trained, by component, in the order in which the module has them."""
        components = self.component_of()
        groups: dict[str, list[nn.Parameter]] = {}
        for parameter in self.module.parameters():
            if parameter.requires_grad:
                groups.setdefault(components[id(parameter)], []).append(parameter)
        return groups

    def make_optimizer(self) -> MasterOptimizer:
        """The cell's optimizer over the parameters that are trained."""
        hyper = self.hyper
        groups = [(hyper.rate(component), of_it) for component, of_it in self.groups().items()]
        return MasterOptimizer(self.cell, groups, hyper, layer_matrices(self.module))

    @property
    def num_parameters(self) -> int:
        """Parameters of the scope, tied ones once."""
        packed = (m.numel for m in self.module.modules() if isinstance(m, Packed))
        return sum(p.numel() for p in self.module.parameters()) + sum(packed)


Builder = Callable[[Cell, System, Context], Workload]
SCOPES: Registry[Builder] = Registry("scope", "workbench.lvlm.scopes")
VISUAL_UNITS: dict[str, Callable[[Cell], int]] = {}
"""Scopes in which |V| comes in wholes, such as images: it is a multiple of this."""


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
    """The places, the first of which take features of the tower where it gives any (deepstack).

    Raises Unsupported where system, reducer or checkpoints leave no such rows between layers.
    """
    if cell.scope != "lvlm" or cell.pass_ == "decode" or not cell.num_visual:
        return places
    tower = tower_of(model, cell.tower)
    if not tower.stacked:
        return places
    adds = f"the tower of {tower.front_end} adds features to every visual row after each of the "
    adds += f"first {tower.stacked} layers (deepstack)"
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
    return tuple(replace(p, stacked=not p.inserted and p.index < tower.stacked) for p in places)


def kinds_of(cell: Cell) -> tuple[Hashable, ...]:
    """The kind of each of ``places_of``; equal kinds are alike in all costs."""
    return layer_kinds(resolve(cell.model), places_of(cell))


def repeated_layers(cell: Cell) -> Stretch:
    """Where the layers of a cell's decoder repeat, in whole groups of those under a checkpoint."""
    grouped = (cell.checkpoint_every or 1) if cell.checkpoint else 1
    return stretch_of(kinds_of(cell), grouped)


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
        named = "ulysses" if cell.ring == 1 else "ring"
        raise Unsupported(
            f"{named}: most layers of {cell.model} are linear, and ranks that share a sequence do "
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


def check_names(cell: Cell) -> None:
    """Raise RequestError for what the cell names and no registry holds: all of it, in a line."""
    looks: tuple[Callable[[], object], ...] = (
        lambda: resolve(cell.model),
        lambda: system_of(cell),
        lambda: KERNELS[cell.kernel],
        lambda: SCOPES[cell.scope],
        lambda: OPTIMIZERS[cell.optimizer],
        lambda: reducer_of(cell),
    )
    faults = []
    for find in looks:
        try:
            find()
        except RequestError as error:
            faults.append(str(error))
    if faults:
        raise RequestError("; ".join(faults))


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
        named = "ulysses" if cell.ring == 1 else "ring"
        raise RequestError(f"reduce {reducer.name}: {named} shares a sequence that is not reduced")
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


def parts_of(
    model: Resolved, layer: nn.Module, place: Place, system: System, context: Context
) -> LayerParts:
    """The parts of the layer at a place, once the kernel has agreed to serve it."""
    parts = model.family.parts(layer)
    # A decode step's cache holds only what its token sees: there is nothing left to mask.
    decode = context.cell.pass_ == "decode"
    bites = system.window_bites(place, parts.window)
    check_mixing(model, parts, system, context.cell)
    system.refuse(parts, place, bites)
    if parts.linear is None:
        context.kernel.refuse(parts, system.decomposed, bites and not decode)
        context.require(parts, system.decomposed)
    grouped = parts.experts is not None and not parts.experts.every
    if grouped and context.dtype == torch.float64:
        raise Unsupported(
            f"dtype float64: the experts of {model.config.model_type} are one call of "
            "torch's grouped matmul, which takes float32, bfloat16 and float16"
        )
    added = not place.inserted and system.extra_parameters(parts, place)
    if added and context.checkpoint() is not None:
        context.flag(f"weights: random in what {system.name} adds to a layer")
    return parts


def check_mixing(model: Resolved, parts: LayerParts, system: System, cell: Cell) -> None:
    """Raise Unsupported where a system or an option has no form for gates and linear layers."""
    family = model.config.model_type
    if (parts.gated or parts.linear is not None) and not system.mixes:
        raise Unsupported(
            f"{system.name}: most layers of {family} are linear, without query-key pairs, and the "
            f"others gate their output; {system.name} has no form for either"
        )
    if parts.gated and cell.fold:
        raise Unsupported(
            f"fold: {family} gates the output of each query head, which leaves no columns of W_o "
            "to sum"
        )


def make_layer(model: Resolved, place: Place, context: Context) -> nn.Module:
    """The real layer of a place on the context's device and dtype, with random or loaded weights.

    A checkpoint has no layer of the system's own: those stay random, and a flag says so.
    """
    layer = context.create(lambda: model.family.layer(model.config, place.index))
    model.family.settle(layer, context.device, context.dtype)
    checkpoint = context.checkpoint()
    if checkpoint is None or place.inserted:
        randomise(layer)
        if context.cell.experts_skew:
            _send_alike(model.family.router(layer))
        if checkpoint is not None:
            context.flag("weights: random in the layers that the attention system inserts")
    else:
        checkpoint.fill(f"layers.{place.index}.", layer)
    return layer.train(context.cell.pass_ == "train")


def _send_alike(router: Any) -> None:
    """Have a layer's router prefer the same experts whatever it reads: all scores are equal."""
    if router is not None:
        with torch.no_grad():
            router.weight.zero_()


def random_tensor(shape: tuple[int, ...], context: Context, grad: bool = False) -> Tensor:
    """Standard normal values of the context's dtype, repeating after BLOCK of them."""
    return context.random(shape).requires_grad_(grad)


class Checkpointed(nn.Module):
    """A module whose activations are recomputed in backward (torch's non-reentrant form).

    Its inputs, which are kept for that, wait on the host where there is an ``offload``.
    """

    def __init__(self, inner: nn.Module, offload: Offload | None = None) -> None:
        super().__init__()
        self.inner, self.offload = inner, offload

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        if not torch.is_grad_enabled():
            return self.inner(*state)
        with nullcontext() if self.offload is None else self.offload.boundary(state):
            return torch.utils.checkpoint.checkpoint(
                self.inner, *state, use_reentrant=False, preserve_rng_state=False
            )
