"""AdamW in mixed precision: float32 master weights and moments beside narrower weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from workbench.lvlm.training import Hyper


class MasterAdamW:
    """torch's AdamW on master weights, one parameter at a time.

    12 bytes a parameter below float32 (master, two moments), else two moments of its own
    precision; the float32 copy of a gradient exists for one parameter at a time.
    """

    def __init__(
        self, groups: Iterable[tuple[float, list[nn.Parameter]]], settings: Hyper
    ) -> None:
        """``groups`` are learning rates and the parameters that they are of."""
        pairs = [(rate, p) for rate, group in groups for p in group if p.requires_grad]
        self.parameters = [p for _, p in pairs]
        self.masters = [
            p if p.element_size() >= 4 else p.detach().float().requires_grad_()
            for p in self.parameters
        ]
        self.optimizers = [
            torch.optim.AdamW(
                [master],
                lr=rate,
                betas=settings.betas,
                eps=settings.eps,
                weight_decay=settings.weight_decay,
                foreach=False,
            )
            for (rate, _), master in zip(pairs, self.masters, strict=True)
        ]
        for optimizer, master in zip(self.optimizers, self.masters, strict=True):
            optimizer.state[master] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }

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
        ]
        return [*own, *states]
