"""What a probe may ask of the machine, so that it can choose sizes that fit it.

Which cells a probe has depends on what the machine is, never on how busy it is: a sweep that is
continued has to come to the same ones.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from workbench.probe.machine.environment import (
    device_name,
    environment,
    free_memory_bytes,
    num_threads,
    resolve_device,
)
from workbench.vocabulary.devices import DEVICES, entry_of
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import Dtype


class CpuSpeed(NamedTuple):
    """The data type that the CPU multiplies fastest, and about how fast all its cores do."""

    dtype: Dtype
    flops_per_s: float


# FLOP/s a core. Seen on two cores with torch 2.13: 129 GFLOP/s in float32 with AVX2 (and 21 in
# bfloat16, which is emulated there), about 800 in bfloat16 with AMX. avx512_bf16 is not measured:
# it multiplies two pairs where AVX-512 multiplies one.
_SPEEDS: tuple[tuple[str, Dtype, float], ...] = (
    ("amx_bf16", "bfloat16", 400e9),
    ("avx512_bf16", "bfloat16", 129e9),
    ("", "float32", 64.5e9),
)


def has_cuda() -> bool:
    """Whether ``auto`` means a GPU here."""
    return resolve_device("auto") == "cuda"


def cpu_speed(cpuinfo: str | None = None) -> CpuSpeed:
    """By the instructions that ``/proc/cpuinfo`` names: bfloat16 only where the CPU has it."""
    text = Path("/proc/cpuinfo").read_text(errors="replace") if cpuinfo is None else cpuinfo
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    flags = {"", *(match[1].split() if match else ())}
    dtype, rate = next((dtype, rate) for flag, dtype, rate in _SPEEDS if flag in flags)
    return CpuSpeed(dtype, rate * num_threads())


class Card(NamedTuple):
    """The card that ``cuda`` means here."""

    flops_per_s: float
    """Dense bfloat16 that its matmuls reach, about: a share of the datasheet's peak."""
    memory_bytes: int


REACHED = 0.55
"""Share of the datasheet's peak: an H100's layers reach 0.5 to 0.67 of it."""
UNKNOWN_FLOPS, UNKNOWN_BYTES = 1e14, 80 * 10**9
"""Of a card that no device entry describes, and of one whose driver does not say."""


def card() -> Card:
    """By the driver's name of the card, so that every look finds the same."""
    try:
        entry = DEVICES[entry_of(device_name("cuda"))]
    except RequestError:
        there = environment("cuda").gpu_memory_bytes
        return Card(REACHED * UNKNOWN_FLOPS, there or UNKNOWN_BYTES)
    peak, memory = entry.peak("bfloat16"), entry.capacity_bytes
    assert peak is not None, "every card states its peaks"
    assert memory is not None, "every card states its memory"
    return Card(REACHED * peak, memory)


def memory_limit(at_most: int, share_of_free: float) -> int:
    """Bytes for a worker. It is part of how a cell is measured, not of which cells there are."""
    return min(at_most, int(share_of_free * free_memory_bytes()))


def thinned(
    sizes: Sequence[int], seconds: Callable[[int], float], budget_s: float
) -> tuple[int, ...]:
    """``sizes``, ascending, thinned until their seconds are within the budget; never none.

    Every second one goes first, which keeps the range, as long as three sizes remain: fewer fit no
    curve. Then the largest goes, and so on.
    """
    for stop in range(len(sizes), 0, -1):
        whole = tuple(sizes[:stop])
        for thinner in (whole, whole[::2]):
            enough = len(thinner) >= min(3, stop)
            if enough and sum(map(seconds, thinner)) <= budget_s:
                return thinner
    return tuple(sizes[:1])
