"""What this very machine reaches: the best of large matmuls in a data type, and of large copies.

Measured once for an environment and a data type, in a second at most, outside of any cell.
"""

import time
from collections.abc import Callable

import torch
from torch import cuda

from workbench.lvlm.context import DTYPES
from workbench.vocabulary.record import Ceiling

SECONDS = 0.3
"""That each of the two is repeated for."""
AT_LEAST = 3
CPU_SIZE, CARD_SIZE = 1024, 8192
"""Rows and columns of the matrices: on a card some milliseconds in bfloat16, every unit busy."""
CPU_BYTES, CARD_BYTES = 2**27, 2**31
"""Bytes of the block that is copied: beyond any cache."""


def measure_ceiling(dtype: str, device: str) -> Ceiling:
    """The ceilings of ``cpu``, ``cuda`` or ``cuda:N`` for a data type."""
    place = torch.device(device)
    card = place.type == "cuda"
    size = CARD_SIZE if card else CPU_SIZE
    a = torch.randn(size, size, device=place).to(DTYPES[dtype])
    out = torch.empty_like(a)
    matmul = best_seconds(lambda: torch.mm(a, a, out=out), place)
    room = CARD_BYTES
    if card:
        room = min(room, cuda.mem_get_info(place)[0] // 4)
    block = torch.ones(room if card else CPU_BYTES, dtype=torch.uint8, device=place)
    target = torch.empty_like(block)
    copy = best_seconds(lambda: target.copy_(block), place)
    ceiling = Ceiling(2 * size**3 / matmul, 2 * block.numel() / copy)
    if card:
        del a, out, block, target
        cuda.empty_cache()  # The first cell starts with a card as empty as every other.
    return ceiling


def best_seconds(run: Callable[[], object], place: torch.device) -> float:
    """The shortest of the repetitions that fit into SECONDS, after one that warms up."""
    timed = _on_card if place.type == "cuda" else _on_cpu
    timed(run)
    best, stop_at, count = float("inf"), time.monotonic() + SECONDS, 0
    while count < AT_LEAST or time.monotonic() < stop_at:
        best, count = min(best, timed(run)), count + 1
    return best


def _on_cpu(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _on_card(run: Callable[[], object]) -> float:
    begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
