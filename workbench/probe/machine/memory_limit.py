"""A ceiling on the host memory of a worker, so that a cell meets a real allocation failure.

``RLIMIT_DATA`` counts private writable mappings: tensors, not shared libraries. Tried with torch
2.13 on eager, fused and linear layers, forward and backward, it always ends in the CPU allocator's
error or in MemoryError, never in a crash, provided that the threads of torch exist before.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.probe.machine.environment import free_memory_bytes
from workbench.vocabulary.devices import device as device_entry
from workbench.vocabulary.sweep import Point

SHARE_OF_FREE = 0.9
"""What a cell may take of the memory that is free when it starts, whatever its limit says."""


def host_limit(point: Point, device: str, share: float = 1.0) -> int | None:
    """Bytes that each process of a measured cell may allocate on the host; None on CUDA.

    None for a prediction, too. The lowest of the protocol's limit, the cell's memory cap (which
    ``measure`` applies by itself on CUDA) and 90 % of what is free: without the last a large cell
    would take the machine down. Of the last a worker takes its ``share``, since others may start
    their cells just then, and of that each rank of a cell an even part.
    """
    if point.source != "measured" or device != "cpu":
        return None
    free = int(share * SHARE_OF_FREE * free_memory_bytes())
    return min([free // point.ranks, *asked_limits(point)])


def asked_limits(point: Point) -> list[int]:
    """The limits in bytes that the request itself names, of one process.

    A memory cap is one rank's; a memory limit the ranks share. RequestError for an unknown device.
    """
    cap = point.cell.memory_cap
    if isinstance(cap, str):
        cap = device_entry(cap).capacity_bytes
    whole = point.protocol.memory_limit
    shared = None if whole is None else whole // point.ranks
    return [limit for limit in (shared, cap) if limit is not None]


def held_bytes() -> int:
    """What the limit counts of this process now: ``VmData``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) * 1024


@contextmanager
def limited(num_bytes: int | None) -> Iterator[None]:
    """Let this process map ``num_bytes`` in all (``held_bytes`` counts) inside the block."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if num_bytes is not None:
        hard = before[1]
        soft = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
