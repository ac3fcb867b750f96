"""transformers' Adafactor with a fixed learning rate: second moments as sums of rows and columns.

A parameter of at least two dimensions has a number a row and one a column of its last two
(arXiv 1804.04235), any other a whole second moment; no first one. float32 throughout.
"""

from functools import partial
from math import prod
from typing import TYPE_CHECKING

import torch

from workbench.lvlm.optimizers import (
    FLOAT,
    OPTIMIZERS,
    Optimizer,
    Sequence,
    Stepped,
    Temporaries,
)

if TYPE_CHECKING:
    from workbench.lvlm.optimizers.settings import Hyper


class Adafactor(Optimizer):
    name = "adafactor"

    def states(self, of: Stepped) -> tuple[int, ...]:
        """With the number ``RMS``, which each step makes anew."""
        item = max(of.item, FLOAT)
        if len(of.shape) < 2:
            return item * of.numel, item
        rows, columns = self._factors(of)
        return item * rows, item * columns, item

    def _factors(self, of: Stepped) -> tuple[int, int]:
        """Elements of the factors: of a stack of matrices, those of each."""
        *stack, rows, columns = of.shape
        return prod(stack) * rows, prod(stack) * columns

    def temporaries(self, of: Stepped, card: bool) -> Temporaries:
        """Gradient and weight in float32 where they are narrower, the squares, the update."""
        item, take = max(of.item, FLOAT), Sequence()
        wide = item * of.numel
        if of.item < FLOAT:
            take.take(wide)
            take.take(wide)
        square = take.take(wide)
        update = take.take(wide)
        take.give(square)
        factors = []
        if len(of.shape) >= 2:
            for size in self._factors(of):
                take.give(take.take(item * size))
            factors = [take.take(item * size) for size in self._factors(of)]
        scaled = take.take(wide)
        take.give(*factors, update)
        take.take(wide)  # The update, negated.
        take.give(scaled)
        return take.done()

    def make(
        self, parameter: torch.Tensor, matrix: bool, rate: float, settings: "Hyper"
    ) -> torch.optim.Optimizer:
        from transformers.optimization import Adafactor as Real

        optimizer: torch.optim.Optimizer = Real(
            [parameter],
            lr=rate,
            weight_decay=settings.weight_decay,
            scale_parameter=False,
            relative_step=False,
        )
        wide = torch.promote_types(parameter.dtype, torch.float32)
        zeros = partial(torch.zeros, dtype=wide, device=parameter.device)
        state: dict[str, object] = {"step": 0, "RMS": zeros(())}
        if parameter.ndim < 2:
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=wide)
        else:
            state["exp_avg_sq_row"] = zeros(parameter.shape[:-1])
            state["exp_avg_sq_col"] = zeros(parameter.shape[:-2] + parameter.shape[-1:])
        optimizer.state[parameter] = state
        return optimizer


OPTIMIZERS.add("adafactor", Adafactor())
