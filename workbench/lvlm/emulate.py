"""One rank of a ZeRO-3 run on a single device: what it computes is real, what it holds is there.

The layers that run share the weights of one, as they do where a layer is gathered for its turn;
those weights and their gradients stand for ZeRO's gathered parameters and its gradient bucket. One
parameter of the rank's share of elements carries sharded weights, gradients and the optimizer.
Bytes that nothing here fills are ballast: the rest of ZeRO's buffers, and what layers that do not
run would have kept for their backward. Nothing is communicated.
"""

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from workbench.lvlm.build import build
from workbench.lvlm.kinds import shortened
from workbench.lvlm.optimizers.mixed_precision import MasterOptimizer
from workbench.lvlm.places import repeated_layers
from workbench.lvlm.workload import Workload
from workbench.vocabulary.cell import Cell


@dataclass(frozen=True)
class Emulation:
    """How much of the rank is computed, and what stands for the rest."""

    layers: int
    """Decoder layers that run."""
    shard: int
    """Elements of every state that is divided: weights, gradients, optimizer."""
    ballast_bytes: int = 0


@dataclass
class EmulatedRank(Workload):
    """A workload that keeps its gradients, as a bucket does, and steps on the shard alone."""

    shard: nn.Parameter = field(default_factory=lambda: nn.Parameter(torch.empty(0)))
    ballast: list[Tensor] = field(default_factory=list)

    def clear(self) -> None:
        for parameter in self.module.parameters():
            assert parameter.grad is not None, "made with the workload"
            parameter.grad.zero_()
        for tensor in self.inputs:
            tensor.grad = None

    def held_by_kind(self) -> dict[str, list[Tensor]]:
        kinds = super().held_by_kind()
        gradients = [p.grad for p in (*self.module.parameters(), self.shard) if p.grad is not None]
        return {**kinds, "ballast": [self.shard, *gradients, *self.ballast]}

    def make_optimizer(self) -> MasterOptimizer:
        groups = [(self.hyper.rates["decoder"], [self.shard])]
        return MasterOptimizer(self.cell, groups, self.hyper, set())


def chosen_layers(cell: Cell, count: int) -> tuple[int, ...]:
    """The layers of which ``count`` run: as many units fewer of those that repeat."""
    stretch = repeated_layers(cell)
    left_out = (stretch.total - count) // stretch.unit
    return shortened([stretch], stretch.total, stretch.count - left_out)


def emulated_rank(cell: Cell, emulation: Emulation, device: torch.device | str) -> EmulatedRank:
    """The workload of one rank of the cell; raises as ``build`` does."""
    layers = chosen_layers(cell, emulation.layers)
    workload = build(cell, device, layers, shared=True)
    place = workload.context.device
    shard = nn.Parameter(torch.zeros(emulation.shard, device=place, dtype=workload.context.dtype))
    for parameter in (*workload.module.parameters(), shard):
        parameter.grad = torch.zeros_like(parameter)
    # Filled, so that a host that gives memory only when it is touched gives it.
    ballast = torch.ones(emulation.ballast_bytes, device=place, dtype=torch.uint8)
    whole = {f.name: getattr(workload, f.name) for f in fields(Workload)}
    return EmulatedRank(**whole, shard=shard, ballast=[ballast])
