"""What one cell runs: the module, its inputs, its optimizer, and one iteration of it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import System
from workbench.lvlm.context import Context
from workbench.lvlm.optimizers.mixed_precision import MasterOptimizer, layer_matrices
from workbench.lvlm.optimizers.settings import Hyper, hyper_of
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.lvlm.weights.packed import Packed
from workbench.vocabulary.cell import Cell


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
        for cache in self.context.caches:
            cache.clear()
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
