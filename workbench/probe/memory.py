"""Peak memory of one iteration, measured in a pass of its own."""

from torch import cuda
from torch.profiler import ProfilerActivity, profile

from workbench.lvlm.build import Workload
from workbench.probe.tracker import storage_bytes


def cpu_peak_bytes(workload: Workload) -> int:
    """Peak of allocated bytes on the CPU: what is held before, plus the allocator's own events."""
    workload.clear()
    held = storage_bytes(workload.held())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
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


def cuda_peak_bytes(workload: Workload) -> tuple[int, int, int]:
    """Peak of allocated bytes, of reserved bytes, and allocation retries on the CUDA device."""
    device = workload.context.device
    workload.clear()
    cuda.synchronize(device)
    cuda.reset_peak_memory_stats(device)
    retries = cuda.memory_stats(device).get("num_alloc_retries", 0)
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
