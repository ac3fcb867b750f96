"""Peak memory of one iteration, measured in a pass of its own that also sees which kernels run."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import cuda
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.lvlm.workload import Workload
from workbench.probe.counting.allocator import MIN_BLOCK
from workbench.probe.counting.flops import is_attention
from workbench.probe.counting.tracker import storage_bytes
from workbench.probe.measuring.history import CpuHistory, CudaHistory, Recorder
from workbench.probe.predicting.peak import add

AGREEMENT = 0.01
"""How far the sum of an allocator's history may be from the peak that it reports."""


@dataclass(frozen=True)
class Split:
    """Bytes by kind."""

    held: dict[str, int]
    """Bytes before the iteration: weights, inputs, optimizer."""
    gradients: int
    """Bytes of the weights' gradients, after a backward."""
    activations: int
    """What a train pass's forward leaves for its backward."""
    by_kind: dict[str, int] | None
    """At the peak; None where the allocator's history does not add up to its peak."""
    by_phase: dict[str, dict[str, int]]
    """At the start, at the peak and at the end of forward, backward and optimizer."""

    def metrics(self) -> dict[str, int | float | None]:
        """Bytes as the record's metrics."""
        return {
            "weight_bytes": self.held["weights"],
            "gradient_bytes": self.gradients,
            "optimizer_bytes": self.held["optimizer"],
            "activation_bytes": self.activations,
            "working_bytes": None if self.by_kind is None else self.by_kind.get("working", 0),
        }

    def details(self) -> dict[str, Any]:
        """What is too fine for a metric."""
        kinds = {} if self.by_kind is None else {"memory_by_kind": self.by_kind}
        return {"memory_by_phase": self.by_phase, **kinds}


@dataclass(frozen=True)
class Memory:
    """What one iteration took, in bytes; what the CPU does not have is None."""

    peak: int
    reserved: int | None
    retries: int
    """Times that the CUDA allocator had to free its cache."""
    attention_operators: tuple[str, ...]
    """The operators that multiplied queries with keys: which kernel really ran."""
    split: Split | None = None
    """None where nothing but the peak was asked for."""

    def metrics(self) -> dict[str, int | float | None]:
        """Bytes as the record's metrics."""
        return {
            "peak_bytes": self.peak,
            **({} if self.reserved is None else {"reserved_bytes": self.reserved}),
            **({} if self.split is None else self.split.metrics()),
        }

    def details(self) -> dict[str, Any]:
        """The record's details: which attention operators ran, bytes by phase."""
        operators = self.attention_operators
        attention = {"attention_operators": list(operators)} if operators else {}
        return attention | ({} if self.split is None else self.split.details())

    def flags(self) -> list[str]:
        """The reason for what is missing, and the allocator's retries."""
        flags = []
        if self.retries:
            flags.append(f"retries: the allocator had to free its cache {self.retries} times")
        if self.split is not None and self.split.by_kind is None:
            flags.append("working_bytes: the allocator's history does not add up to its peak")
        return flags


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if is_attention(func.overloadpacket):
            self.names.add(str(func.overloadpacket).removeprefix("aten."))
        return func(*args, **(kwargs or {}))


def memory_pass(workload: Workload) -> Memory:
    """One iteration, tracked; gradients of the last one are dropped first."""
    workload.clear()
    observer = _Seen()
    # A compiled module does not meet its own graph under a dispatch mode.
    watchable = workload.context.kernel.under_dispatch and not workload.cell.compile
    watch: AbstractContextManager[object] = observer if watchable else nullcontext()
    cuda = workload.context.device.type == "cuda"
    history: Recorder = CudaHistory(workload.context.device) if cuda else CpuHistory()
    granule = MIN_BLOCK if cuda else 1
    by_kind = {
        kind: storage_bytes(tensors, granule) for kind, tensors in workload.held_by_kind().items()
    }
    with history, watch:
        _step(workload, history.mark)
    weights = [p.grad for p in workload.module.parameters() if p.grad is not None]
    inputs = [x.grad for x in workload.inputs if x.grad is not None]
    timeline = history.timeline({"gradients": weights, "input gradients": inputs})
    # What CUDA's libraries keep between iterations is held too, in no tensor.
    libraries = history.start_bytes() - sum(by_kind.values())
    by_kind |= {"workspace": libraries} if libraries > 0 else {}
    before = sum(by_kind.values())
    top, moment = timeline.peak()
    peak = history.peak_bytes() or before + top
    adds_up = abs(before + top - peak) <= AGREEMENT * peak
    kinds = add(by_kind, timeline.by_kind(moment))
    end = timeline.forward_end
    split = Split(
        held=by_kind,
        gradients=storage_bytes(weights, granule),
        activations=timeline.by_kind(end).get("activations", 0) if end >= 0 else 0,
        by_kind={kind: size for kind, size in kinds.items() if size} if adds_up else None,
        by_phase=history.phases(timeline, before),
    )
    operators = tuple(sorted(observer.names))
    return Memory(peak, history.reserved_bytes(), history.retries(), operators, split)


def _step(workload: Workload, mark: Callable[[str], None]) -> None:
    """``Workload.step`` with a mark where a phase ends."""
    outputs = workload.run_forward()
    mark("forward")
    if workload.cell.pass_ == "train":
        workload.run_backward(outputs)
        del outputs
        for _ in range(workload.cell.accumulate - 1):
            workload.run_backward(workload.forward())
        mark("backward")
        if workload.optimizer is not None:
            workload.run_optimizer()
            mark("optimizer")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is the allocator's refusal, on CUDA or on the CPU."""
    if isinstance(error, (cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text
        for sign in (
            "can't allocate memory",
            "not enough memory",
            "std::bad_alloc",
            "out of memory",
        )
    )
