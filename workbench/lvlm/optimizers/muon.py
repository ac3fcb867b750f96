"""torch's Muon on the matrices of layers, AdamW on everything else, as torch's page of it says.

The step makes the momentum of a matrix [m, n] nearly orthogonal: 5 iterations of Newton and
Schulz in bfloat16, whose matmuls are FLOPs of the step. It takes AdamW's learning rate
(``match_rms_adamw``).
"""

from typing import TYPE_CHECKING

import torch

from workbench.lvlm.optimizers import (
    OPTIMIZERS,
    Optimizer,
    Sequence,
    Stepped,
    Temporaries,
)
from workbench.lvlm.optimizers.adamw import AdamW

if TYPE_CHECKING:
    from workbench.lvlm.optimizers.settings import Hyper

ITERATIONS = 5
"""``ns_steps``."""
NARROW = 2
"""Bytes of a bfloat16 element."""


class Muon(Optimizer):
    name = "muon"
    other = AdamW()

    def states(self, of: Stepped) -> tuple[int, ...]:
        return (of.nbytes,) if of.matrix else self.other.states(of)

    def temporaries(self, of: Stepped, card: bool) -> Temporaries:
        if not of.matrix:
            return self.other.temporaries(of, card)
        take, side = Sequence(), NARROW * min(of.shape) ** 2
        update = take.take(of.nbytes)
        last = update if of.item == NARROW else take.take(NARROW * of.numel)
        products: list[int] = []
        for _ in range(ITERATIONS):
            for _ in range(2):  # The Gram matrix and its polynomial, each over the last one's.
                products.append(take.take(side))
                if len(products) > 2:
                    take.give(products.pop(0))
            narrow = take.take(NARROW * of.numel)
            if last != update:
                take.give(last)
            last = narrow
        take.give(*products, update)
        if not card and of.item > NARROW:
            take.take(of.nbytes)  # The CPU widens the update before it adds it.
        return take.done()

    def flops(self, of: Stepped) -> int:
        if not of.matrix:
            return 0
        short, long = sorted(of.shape)
        return ITERATIONS * (4 * short**2 * long + 2 * short**3)

    def make(
        self, parameter: torch.Tensor, matrix: bool, rate: float, settings: "Hyper"
    ) -> torch.optim.Optimizer:
        if not matrix:
            return self.other.make(parameter, matrix, rate, settings)
        optimizer = torch.optim.Muon(
            [parameter],
            lr=rate,
            weight_decay=settings.weight_decay,
            ns_steps=ITERATIONS,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        return optimizer


OPTIMIZERS.add("muon", Muon())
