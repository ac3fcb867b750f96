"""What one of several workers gets of its machine."""

from dataclasses import dataclass

from workbench.probe.machine import environment
from workbench.vocabulary.record import Environment


@dataclass(frozen=True)
class Seat:
    """A worker's place beside others; without arguments it has the machine to itself."""

    gpu: str | None = None
    """The one card that CUDA shows the worker, as ``CUDA_VISIBLE_DEVICES`` has it."""
    threads: int | None = None
    """The threads that torch starts with."""
    share: float = 1.0
    """The part of the free host memory that a cell may take."""

    @property
    def variables(self) -> dict[str, str]:
        """What the worker's environment says of it."""
        variables = {}
        if self.gpu is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpu
        if self.threads is not None:
            variables["OMP_NUM_THREADS"] = str(self.threads)
        return variables

    def environment(self, device: str) -> Environment:
        """The facts of this machine as they are for the worker."""
        facts = environment.environment(device)
        if self.threads is None:
            return facts
        return facts.model_copy(update={"num_threads": self.threads})


WHOLE_MACHINE = Seat()
