"""Iterations and nothing around them: what a trial of a threshold runs."""

from torch import cuda

from workbench.lvlm.workload import Workload
from workbench.probe.measuring.memory import Memory
from workbench.probe.measuring.timing import Timing, iterate


def trial_iterations(workload: Workload, count: int) -> tuple[Timing, Memory | None, list[str]]:
    """``count`` iterations, the first one among them; no warm-up, no extra pass.

    The first is the preparation: only further ones are an iteration's time. The peak comes from
    CUDA's own counters; the CPU has none, so that there it is None.
    """
    device, timing = workload.context.device, Timing()
    if device.type == "cuda":
        cuda.synchronize(device)
        cuda.reset_peak_memory_stats(device)
    retries = cuda.memory_stats(device).get("num_alloc_retries", 0) if device.type == "cuda" else 0
    timing.metrics["prepare_s"] = iterate(workload)["time_s"]
    for _ in range(count - 1):
        timing.add(iterate(workload))
    timing.details["iterations"] = count
    flags = [f"no_warmup: {count} iterations, from the first on"]
    if count == 1:
        flags.append("time_s: the only iteration was the first, which prepares what others find")
    if device.type != "cuda":
        return timing, None, [*flags, "peak_bytes: not tracked in a trial on the CPU"]
    retries = cuda.memory_stats(device).get("num_alloc_retries", 0) - retries
    peak, reserved = cuda.max_memory_allocated(device), cuda.max_memory_reserved(device)
    memory = Memory(peak, reserved, retries, ())
    return timing, memory, [*flags, *memory.flags()]
