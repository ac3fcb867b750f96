"""The interval of a median covers as often as it says, whatever the noise looks like."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import coverage
from workbench.vocabulary.stats import median_interval, median_ratio

NOISE: dict[str, tuple[Callable[[random.Random], float], float]] = {
    "normal": (lambda r: r.gauss(10, 1), 10.0),
    "skewed, as timings are": (lambda r: 10 + math.exp(r.gauss(0, 1)), 11.0),
    "exponential": (lambda r: r.expovariate(1), math.log(2)),
    "without a variance": (lambda r: math.tan(math.pi * (r.random() - 0.5)), 0.0),
}


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("n", [20, 21, 23, 30, 100])
def test_coverage_of_the_median(name: str, n: int) -> None:
    draw, true = NOISE[name]
    chance, trials, hits = random.Random(n), 2500, 0
    for _ in range(trials):
        found = median_interval([draw(chance) for _ in range(n)])
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= true <= found.high
    assert 0.93 <= hits / trials <= 0.97


def test_the_method_states_the_coverage_that_the_bench_prints() -> None:
    method = (Path(__file__).parents[2] / "docs" / "method.md").read_text()
    for share in (coverage.at_fixed(20), coverage.under_the_rule(0.02)):
        assert 0.93 <= share <= 0.97
        assert f"{share:.2%}" in method


@pytest.mark.parametrize("n", [20, 35])
def test_coverage_of_the_ratio_of_two_medians(n: int) -> None:
    chance, trials, hits = random.Random(n), 2500, 0
    for _ in range(trials):
        over = [3 * math.exp(chance.gauss(0, 0.2)) for _ in range(n)]
        under = [2 * math.exp(chance.gauss(0, 0.1)) for _ in range(n + 5)]
        found = median_ratio(over, under)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 1.5 <= found.high
    assert 0.93 <= hits / trials <= 0.97


def test_few_samples_have_a_median_and_no_interval() -> None:
    for n in range(1, 6):
        found = median_interval([float(i) for i in range(n)])
        assert (found.median, found.low, found.high) == ((n - 1) / 2, None, None)
        assert found.relative_half_width is None
    assert median_interval(range(6)).low is not None
    assert median_ratio([1.0, 2.0], [1.0] * 9) == (1.5, None, None)


def test_the_interval_holds_the_median_and_ignores_order() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 8.0]
    found = median_interval(samples)
    assert found == median_interval(sorted(samples))
    assert found.low < found.median == 4.0 < found.high
    assert found.relative_half_width == (found.high - found.low) / 2 / 4.0
    assert median_interval([7.0] * 50) == (7.0, 7.0, 7.0, 50)
    assert median_interval([0.0] * 9).relative_half_width is None


def test_a_lower_level_gives_a_narrower_interval() -> None:
    widths = []
    for level in (0.5, 0.8, 0.95, 0.999):
        found = median_interval([random.Random(i).random() for i in range(40)], level)
        widths.append(found.high - found.low)
    assert widths == sorted(widths)


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf]])
def test_no_median_of_nothing_or_of_what_is_no_number(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        median_interval(samples)


def test_a_ratio_needs_positive_medians() -> None:
    with pytest.raises(ValueError, match="positive"):
        median_ratio([1.0] * 9, [0.0] * 9)
    assert median_ratio([1.0] * 9, [-1.0] * 4 + [1.0] * 5) == (1.0, None, None)
