"""AdamW in mixed precision: float32 master weights and moments beside narrower weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

LR, BETAS, EPS, WEIGHT_DECAY = 2e-6, (0.9, 0.95), 1e-5, 0.0
"""Table 7 of the D-Attn paper: Mistral, stages 2 and 3."""


class MasterAdamW:
    """torch's AdamW on master weights, one parameter at a time.

    12 bytes a parameter below float32 (master, two moments), else two moments of its own
    precision; the float32 copy of a gradient exists for one parameter at a time.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.masters = [
            p if p.element_size() >= 4 else p.detach().float().requires_grad_()
            for p in self.parameters
        ]
        self.optimizers = [
            torch.optim.AdamW(
                [m], lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, foreach=False
            )
            for m in self.masters
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
