"""An optimizer in mixed precision: float32 master weights beside narrower weights, or none."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from workbench.lvlm.optimizers import OPTIMIZERS, Stepped
from workbench.lvlm.optimizers.settings import Hyper
from workbench.vocabulary.cell import Cell

MASTER = 4
"""Bytes of an element of a master weight."""


def has_master(cell: Cell, width: int) -> bool:
    """Whether a weight whose elements have ``width`` bytes is stepped on in a float32 copy."""
    return width < MASTER and cell.master_weights == "float32"


def stepped(cell: Cell, shape: tuple[int, ...], width: int, matrix: bool) -> Stepped:
    """What the cell's optimizer meets of a weight."""
    return Stepped(shape, MASTER if has_master(cell, width) else width, matrix)


def layer_matrices(module: nn.Module) -> set[int]:
    """Ids of the parameters that are matrices of layers: no embeddings, no LM head."""
    matrices, others = set[int](), set[int]()
    for name, child in module.named_modules():
        outside = isinstance(child, nn.Embedding) or name.rpartition(".")[2] == "lm_head"
        for own, parameter in child.named_parameters(recurse=False):
            if outside:
                others.add(id(parameter))
            elif own == "weight" and parameter.ndim == 2:
                matrices.add(id(parameter))
    return matrices - others


class MasterOptimizer:
    """A cell's optimizer on master weights, one parameter at a time.

    A weight below float32 has a float32 master, unless ``master_weights`` says bfloat16: then the
    optimizer steps on the weight itself. The float32 copy of a gradient exists for one parameter
    at a time.
    """

    def __init__(
        self,
        cell: Cell,
        groups: Iterable[tuple[float, list[nn.Parameter]]],
        settings: Hyper,
        matrices: set[int],
    ) -> None:
        """``groups`` are learning rates and the parameters that they are of, ``matrices`` the ids
        of those that are matrices of layers.
        """
        rule = OPTIMIZERS[cell.optimizer]
        pairs = [(rate, p) for rate, group in groups for p in group if p.requires_grad]
        self.parameters = [p for _, p in pairs]
        self.masters = [
            p.detach().float().requires_grad_() if has_master(cell, p.element_size()) else p
            for p in self.parameters
        ]
        self.optimizers = [
            rule.make(master, id(p) in matrices, rate, settings)
            for (rate, p), master in zip(pairs, self.masters, strict=True)
        ]

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for parameter, master, optimizer in zip(
            self.parameters, self.masters, self.optimizers, strict=True
        ):
            if parameter.grad is None:
                continue
            if master is not parameter:
                master.grad = parameter.grad.float()
            optimizer.step()
            if master is not parameter:
                master.grad = None
                with torch.no_grad():
                    parameter.copy_(master)

    def tensors(self) -> list[Tensor]:
        """Everything that is held between steps besides the parameters."""
        own = [m for m, p in zip(self.masters, self.parameters, strict=True) if m is not p]
        states = [
            value
            for optimizer, master in zip(self.optimizers, self.masters, strict=True)
            for value in optimizer.state[master].values()
            if isinstance(value, Tensor)
        ]
        return [*own, *states]
