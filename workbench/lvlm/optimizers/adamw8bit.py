"""bitsandbytes' AdamW8bit: moments as codes of 8 bits with a float32 a block (arXiv 2110.02861).

A block has 256 elements. Parameters of fewer than 4,096 elements have float32 moments; all others
share two tables of 256 codes.
"""

from math import ceil
from typing import TYPE_CHECKING, ClassVar

import torch

from workbench.lvlm.optimizers import (
    FLOAT,
    OPTIMIZERS,
    Optimizer,
    Sequence,
    Stepped,
    Temporaries,
)
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.optimizers.settings import Hyper

BLOCK = 256
SMALLEST = 4096
"""Elements from which on moments are codes (``min_8bit_size``)."""
TABLES = 2 * 256 * FLOAT
INSTALL = "pip install 'visual-token-workbench[quantize]'"


class AdamW8bit(Optimizer):
    name = "adamw8bit"
    dtypes = ("float32", "bfloat16", "float16")
    real: ClassVar[str] = "AdamW8bit"
    """Its class in ``bitsandbytes.optim``."""
    _tables: ClassVar[dict[str, torch.Tensor] | None] = None

    def states(self, of: Stepped) -> tuple[int, ...]:
        if of.numel < SMALLEST:
            return FLOAT * of.numel, FLOAT * of.numel
        scales = FLOAT * ceil(of.numel / BLOCK)
        return of.numel, of.numel, scales, scales

    def shared(self, of: Stepped) -> int:
        return 0 if of.numel < SMALLEST else TABLES

    def temporaries(self, of: Stepped, card: bool) -> Temporaries:
        """None on a card, whose kernels step in place; on the CPU (backends/cpu/ops.py) both
        moments in float32, the gradient, a narrower weight, and the moments' root twice.
        """
        if card:
            return Temporaries()
        wide, take = FLOAT * of.numel, Sequence()
        coded = of.numel >= SMALLEST
        for _ in range(2 if coded else 0):
            take.take(wide)
        if of.item < FLOAT:
            first = take.take(wide)
            take.take(wide)  # The gradient, scaled.
            take.give(first)
            take.take(wide)  # The weight.
        else:
            take.take(wide)
        root = take.take(wide)
        take.take(wide)
        take.give(root)
        if not coded:
            take.take(wide)
        return take.done()

    def make(
        self, parameter: torch.Tensor, matrix: bool, rate: float, settings: "Hyper"
    ) -> torch.optim.Optimizer:
        try:
            import bitsandbytes
        except ImportError:
            raise RequestError(
                f"optimizer {self.name}: measuring needs bitsandbytes: {INSTALL}"
            ) from None
        optimizer = getattr(bitsandbytes.optim, self.real)(
            [parameter],
            lr=rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        # One pair of tables for all, as where one optimizer has all parameters.
        if AdamW8bit._tables is None:
            AdamW8bit._tables = optimizer.name2qmap
        optimizer.name2qmap = AdamW8bit._tables
        optimizer.init_state(optimizer.param_groups[0], parameter, 0, 0)
        return optimizer


OPTIMIZERS.add("adamw8bit", AdamW8bit())
