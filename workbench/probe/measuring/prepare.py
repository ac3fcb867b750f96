"""What an iteration needs once: compilation, autotuning, cuDNN's plans, first touches of memory.

It has a budget of its own and never counts as an iteration's time.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from workbench.probe.measuring.timing import Clock

COLD = 2.0
"""An iteration that takes over so many times as long as the next was still preparing."""


@dataclass
class Preparation:
    """The iterations before the first warm one, seconds each by the host's clock."""

    budget_s: float
    iterations: list[float] = field(default_factory=list)
    warm: bool = False
    """Whether the next iteration is a warm one; False where the budget ended before."""

    @property
    def seconds(self) -> float:
        """From the first iteration to the first warm one."""
        return sum(self.iterations)

    @property
    def typical_s(self) -> float:
        """Seconds of the last iteration."""
        return self.iterations[-1]

    @property
    def reason(self) -> str:
        """Why there is no warm iteration, in one sentence."""
        count = len(self.iterations)
        return (
            f"no warm iteration: preparing took {self.seconds:.3g} s ({count} "
            f"iteration{'s' * (count != 1)}), and --max-prepare is {self.budget_s:g} s"
        )


def prepare(
    steps: Iterable[Callable[[], object]],
    again: Callable[[], object] | None,
    budget_s: float,
    now: Clock = time.monotonic,
) -> Preparation:
    """Run ``steps`` in order, then ``again`` until an iteration was no longer a cold one.

    Every step is one whole iteration. Without ``again`` the steps are enough. The budget is looked
    at between iterations: one that has begun is never stopped.
    """
    preparation = Preparation(budget_s)

    def run(step: Callable[[], object]) -> None:
        start = now()
        step()
        preparation.iterations.append(now() - start)

    for step in steps:
        if preparation.iterations and preparation.seconds >= budget_s:
            return preparation
        run(step)
    while again is not None and not _agree(preparation.iterations):
        if preparation.seconds >= budget_s:
            return preparation
        run(again)
    preparation.warm = True
    return preparation


def _agree(iterations: list[float]) -> bool:
    """Whether the last one, and with it the one before, did nothing that is done once."""
    return len(iterations) > 1 and iterations[-2] <= COLD * iterations[-1]
