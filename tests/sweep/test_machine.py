"""Thinning a grid depends on what the machine is, and on nothing else."""

import pytest

from workbench.probe.machine.environment import free_memory_bytes, num_threads
from workbench.sweep.machine import cpu_speed, memory_limit, thinned


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("fpu avx2 fma", "float32"),
        ("fpu avx2 avx512f", "float32"),
        ("fpu avx512_bf16", "bfloat16"),
        ("fpu avx512_bf16 amx_bf16 amx_tile", "bfloat16"),
    ],
)
def test_bfloat16_only_where_the_cpu_has_it(flags: str, dtype: str) -> None:
    speed = cpu_speed(f"processor\t: 0\nflags\t\t: {flags}\nbogomips\t: 1\n")
    assert speed.dtype == dtype
    assert speed.flops_per_s >= 6e10 * num_threads()


def test_a_cpu_without_flags_multiplies_float32() -> None:
    assert cpu_speed("Features\t: fp asimd\n").dtype == "float32"
    assert cpu_speed() == cpu_speed()


def test_thinning_keeps_the_range_first() -> None:
    sizes = (1, 2, 4, 8, 16)
    assert thinned(sizes, float, 31) == sizes
    assert thinned(sizes, float, 30) == (1, 4, 16)
    assert thinned(sizes, float, 20) == (1, 2, 4, 8)
    assert thinned(sizes, float, 10) == (1, 2, 4)
    assert thinned(sizes, float, 6) == (1, 2)
    assert thinned(sizes, float, 0) == (1,)


def test_the_limit_is_the_lower_of_both() -> None:
    assert memory_limit(1000, 0.6) == 1000
    assert memory_limit(10**18, 0.5) == pytest.approx(free_memory_bytes() / 2, rel=0.1)
