"""Peak memory of one iteration, measured in a pass of its own that also sees which kernels run."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import cuda
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.lvlm.build import Workload
from workbench.probe.flops import is_attention
from workbench.probe.tracker import storage_bytes


@dataclass(frozen=True)
class Memory:
    """What one iteration took, in bytes; what the CPU does not have is None."""

    peak: int
    reserved: int | None
    retries: int
    """Times that the CUDA allocator had to free its cache."""
    attention_operators: tuple[str, ...]
    """The operators that multiplied queries with keys: which kernel really ran."""


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
    seen = _Seen()
    # A compiled module does not meet its own graph under a dispatch mode.
    watch: AbstractContextManager[object] = nullcontext() if workload.cell.compile else seen
    if workload.context.device.type == "cuda":
        peak, reserved, retries = _cuda(workload, watch)
        return Memory(peak, reserved, retries, tuple(sorted(seen.names)))
    return Memory(_cpu(workload, watch), None, 0, tuple(sorted(seen.names)))


def _cpu(workload: Workload, watch: AbstractContextManager[object]) -> int:
    """What is held before, plus the allocator's own events."""
    held = storage_bytes(workload.held())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, watch:
        workload.step()
    assert profiler.profiler is not None, "the profiler ran"
    events = [
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    live = best = 0
    for _, change in sorted(events, key=lambda event: event[0]):
        live += change
        best = max(best, live)
    return held + best


def _cuda(workload: Workload, watch: AbstractContextManager[object]) -> tuple[int, int, int]:
    device = workload.context.device
    cuda.synchronize(device)
    cuda.reset_peak_memory_stats(device)
    retries = cuda.memory_stats(device).get("num_alloc_retries", 0)
    with watch:
        workload.step()
    cuda.synchronize(device)
    return (
        cuda.max_memory_allocated(device),
        cuda.max_memory_reserved(device),
        cuda.memory_stats(device).get("num_alloc_retries", 0) - retries,
    )


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
