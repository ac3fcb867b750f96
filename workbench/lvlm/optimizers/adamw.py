"""torch's AdamW: two moments as wide as what it steps on."""

from typing import TYPE_CHECKING

import torch

from workbench.lvlm.optimizers import OPTIMIZERS, Optimizer, Stepped, Temporaries

if TYPE_CHECKING:
    from workbench.lvlm.optimizers.settings import Hyper


class AdamW(Optimizer):
    """A root and a quotient of the moments, as large as the parameter, are its temporaries."""

    name = "adamw"

    def states(self, of: Stepped) -> tuple[int, ...]:
        return of.nbytes, of.nbytes

    def temporaries(self, of: Stepped, card: bool) -> Temporaries:
        return Temporaries((of.nbytes, of.nbytes), (0, 1, ~0, ~1))

    def make(
        self, parameter: torch.Tensor, matrix: bool, rate: float, settings: "Hyper"
    ) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(
            [parameter],
            lr=rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            foreach=False,
        )
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        return optimizer


OPTIMIZERS.add("adamw", AdamW())
