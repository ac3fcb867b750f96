"""Comparing two runs: verdicts on synthetic noise, and never a guess."""

import random

import pandas as pd
import pytest

from workbench.analysis import compare, environment_differences
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.record import Environment

CELL = make_cell(num_visual=64)
ID = (CELL.key, "measured", "cpu")


def row(
    status: str = "ok", source: str = "measured", num_visual: int = 64, **metrics: object
) -> dict:
    cell = make_cell(num_visual=num_visual)
    facts = {"run": "r", "key": cell.key, "source": source, "device": "cpu", "status": status}
    return {**dict.fromkeys(METRICS), **facts, **cell.document(), **metrics}


def frame(*args: str, **facts: object) -> pd.DataFrame:
    return pd.DataFrame([row(*args, **facts)])


def noisy(median: float, n: int, seed: int, noise: float = 0.01) -> list[float]:
    chance = random.Random(seed)
    return [median * (1 + noise * chance.gauss(0, 1)) for _ in range(n)]


def verdicts(ratio: float, n: int = 30, trials: int = 200) -> list[str]:
    both = pd.DataFrame([row(num_visual=v, time_s=1.0) for v in range(1, trials + 1)])
    ids = list(zip(both["key"], both["source"], both["device"], strict=True))
    old = {key: noisy(1.0, n, 2 * seed) for seed, key in enumerate(ids)}
    new = {key: noisy(ratio, n, 2 * seed + 1) for seed, key in enumerate(ids)}
    return list(compare(both, both, old, new)["verdict"])


def test_a_real_change_is_found_and_no_change_is_not() -> None:
    assert set(verdicts(1.05)) == {"slower"}
    assert set(verdicts(0.95)) == {"faster"}
    same = verdicts(1.0)
    assert same.count("same") >= 195
    assert set(same) <= {"same", "can't tell", "slower", "faster"}


def test_too_few_samples_cannot_tell() -> None:
    found = compare(frame(time_s=1.0), frame(time_s=3.0), {ID: [1.0] * 5}, {ID: [3.0] * 5})
    assert list(found["verdict"]) == ["can't tell"]
    assert "fewer than 6" in found["note"][0]
    assert found["ratio"][0] == 3.0
    wide = [0.5, 0.7, 1.0, 1.3, 1.6, 2.0, 2.4]
    found = compare(frame(time_s=1.3), frame(time_s=1.3), {ID: wide}, {ID: wide})
    assert list(found["verdict"]) == ["can't tell"]


@pytest.mark.parametrize(
    ("metric", "source", "expected"),
    [
        ("peak_bytes", "measured", "slower"),
        ("time_s", "predicted", "slower"),
        ("time_s", "measured", "can't tell"),
    ],
)
def test_values_without_samples_are_exact_unless_they_are_measured_seconds(
    metric: str, source: str, expected: str
) -> None:
    old, new = (frame(source=source, **{metric: value}) for value in (100.0, 110.0))
    found = compare(old, new, {}, {}, metric)
    assert list(found["verdict"]) == [expected]
    assert found["ratio"][0] == pytest.approx(1.1)


def test_exact_integers_beyond_63_bits_compare() -> None:
    found = compare(frame(flops=2**70), frame(flops=2**71), {}, {}, "flops")
    assert (found["ratio"][0], found["verdict"][0]) == (2.0, "slower")


def test_another_ending_or_a_missing_cell_is_said() -> None:
    cases = [
        ("ok", "oom", "slower"),
        ("oom", "ok", "faster"),
        ("oom", "killed", "can't tell"),
        ("oom", "oom", "can't tell"),
    ]
    for was, now, verdict in cases:
        found = compare(frame(was), frame(now), {}, {})
        assert found["verdict"][0] == verdict
        assert found["note"][0] == (f"was {was}, is {now}" if was != now else "no time_s")
    found = compare(frame(num_visual=1), frame(num_visual=2), {}, {})
    assert sorted(found["note"]) == ["only in the new run", "only in the old run"]
    assert set(found["verdict"]) == {"can't tell"}
    zero = compare(frame(flops=0), frame(flops=0), {}, {}, "flops")
    assert list(zero["verdict"]) == ["same"]


def test_environments_are_compared_fact_by_fact() -> None:
    old = Environment(host="a", commit="1", torch="2.11", gpu="NVIDIA H200", note="x")
    new = Environment(host="b", commit="2", torch="2.13", gpu="NVIDIA H200")
    assert environment_differences(old, new) == ["note: x -> None", "torch: 2.11 -> 2.13"]
    assert environment_differences(old, old) == []
