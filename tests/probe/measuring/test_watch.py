"""Telemetry in the record: energy, marks, the repeated cell, and a reason for all that is not."""

import time

import pytest

from tests.probe.fake_nvml import FakeNvml
from tests.small import small_model
from workbench.probe.machine.nvml import Nvml
from workbench.probe.measuring import watch
from workbench.probe.measuring.measure import measure
from workbench.probe.measuring.telemetry import Telemetry
from workbench.probe.measuring.timing import Timing
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.protocol import Protocol

POWER_CAP, SLOWDOWN = 0x04, 0x08


def timed(library, seconds=(0.02, 0.02, 0.02), throttled=(), by=SLOWDOWN):
    """Samples of that length beside a card that is throttled during those of these indices."""
    timing = Timing()
    with Telemetry("cuda:0", Nvml(library), period_s=0.001, uses_card=False) as telemetry:
        for index, each in enumerate(seconds):
            library.reasons = by if index in throttled else 0
            start = time.monotonic()
            time.sleep(each)
            timing.add({"time_s": each})
            timing.spans.append((start, time.monotonic()))
            library.reasons = 0
            time.sleep(0.01)
    watch.account(timing, telemetry)
    return timing


@pytest.fixture(autouse=True)
def all_cards(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_energy_is_the_counter_s_difference_over_the_samples():
    library = FakeNvml(["NVIDIA H200"])
    before = library.energy_mj
    timing = timed(library)
    # The first look moves the stand-in's counter as every look does: it is not part of the span.
    spent = (library.energy_mj - before - 2_500) / 1e3
    assert timing.metrics["energy_j"] == pytest.approx(spent / 3)
    assert timing.metrics["power_w"] == 412
    assert timing.metrics["device_bytes"] == 2**30
    assert timing.details["telemetry"]["sm_clock_mhz"] == 1980
    assert timing.flags == []
    assert set(timing.metrics) <= set(METRICS)


def test_a_throttled_sample_is_marked_and_no_other():
    timing = timed(FakeNvml(["NVIDIA H200"]), throttled={1})
    assert timing.marked == [1]
    assert timing.flags == ["throttled: hardware slowdown, 1 of 3 samples"]
    assert timing.details["timing"]["disturbed"] == [1]


def test_the_power_cap_is_a_fact_and_disturbs_nothing():
    timing = timed(FakeNvml(["NVIDIA H100 80GB HBM3"]), throttled={0, 1, 2}, by=POWER_CAP)
    assert timing.marked == []
    assert timing.flags == []
    assert 0.5 < timing.metrics["power_cap_share"] <= 1
    assert timing.metrics["sm_clock_hz"] == 1.98e9
    assert timing.details["telemetry"]["throttle_reasons"] == ["power cap"]


def test_another_process_marks_them_all():
    library = FakeNvml(["NVIDIA H200"])
    library.processes = [17]
    timing = timed(library)
    assert timing.marked == [0, 1, 2]
    assert timing.flags == ["shared_card: 1 other processes on the card, 3 of 3 samples"]


@pytest.mark.parametrize(
    ("query", "metric"),
    [
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_j"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetMemoryInfo", "device_bytes"),
        ("nvmlDeviceGetClockInfo", "sm_clock_hz"),
    ],
)
def test_what_the_driver_refuses_is_null_with_its_reason(query, metric):
    timing = timed(FakeNvml(["NVIDIA H200"], broken={query}))
    assert timing.metrics[metric] is None
    assert [name for name, value in timing.metrics.items() if value is None] == [metric]
    assert timing.flags == [f"{metric}: {query}: Not Supported"]


def test_a_counter_that_stands_still_is_not_zero_energy():
    library = FakeNvml(["NVIDIA H200"])
    library.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 5
    timing = timed(library)
    assert timing.metrics["energy_j"] is None
    assert timing.flags == ["energy_j: the card's counter did not move during the samples"]


def test_without_nvml_every_fact_has_a_reason():
    timing = timed(FakeNvml(["NVIDIA H200"], broken={"nvmlInit"}))
    assert set(timing.metrics.values()) == {None}
    assert sorted(flag.split(":")[0] for flag in timing.flags) == sorted(timing.metrics)
    assert all("NVML" in flag for flag in timing.flags)


def test_without_its_package_nvml_has_a_reason(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert Nvml().reason == "NVML: nvidia-ml-py is not installed"


class Workload:
    """What ``watched`` asks of one."""

    class context:
        device = __import__("torch").device("cpu")


@pytest.mark.parametrize(("second", "kept"), [([], 2.0), ([0], 2.0), ([0, 1, 2], 1.0)])
def test_a_disturbed_cell_is_repeated_once(monkeypatch, second, kept):
    """The try with fewer disturbed samples counts; the other is kept beside it."""
    tries = [([0, 1], 1.0), (second, 2.0)]

    def take(*_):
        marked, seconds = tries.pop(0)
        found = Timing(samples={"time_s": [seconds] * 3}, marked=marked)
        found.details["timing"] = {"disturbed": marked}
        return found

    monkeypatch.setattr(watch, "_samples", take)
    found = watch.watched(Workload, Protocol(), 0.1, time.monotonic() + 60)
    assert found.whole == [kept] * 3
    assert found.flags == ["repeated: 2 of the first 3 samples were disturbed"]
    assert found.details["timing"]["discarded"] == {"time_s": [3.0 - kept] * 3}
    assert tries == []


def test_a_cpu_says_so_once_and_counts_its_threads(tmp_path):
    cell = make_cell(model=small_model("mistral", tmp_path), num_visual=8)
    record = measure(cell, "cpu", Protocol(min_samples=2, precision=None))
    assert record.metrics["energy_j"] is None
    assert [flag for flag in record.flags if "NVML" in flag] == ["energy_j: a CPU has no NVML"]
    timing = record.details["timing"]
    assert timing["num_threads"] >= 1
    assert timing["clock"] == "monotonic"
    assert timing["allocator"]["name"] == "malloc"
