import os
import time

import pytest

from tests.probe.fake_nvml import FakeNvml
from workbench.probe.machine.environment import resolve_device
from workbench.probe.machine.nvml import Nvml
from workbench.probe.measuring.telemetry import Snapshot, Telemetry, sensors

FACTS = [*sensors(), *(name for name in Snapshot._fields if name not in ("reasons", "sensed"))]
QUERY = {
    "power_w": "nvmlDeviceGetPowerUsage",
    "energy_j": "nvmlDeviceGetTotalEnergyConsumption",
    "sm_clock_mhz": "nvmlDeviceGetClockInfo",
    "memory_clock_mhz": "nvmlDeviceGetClockInfo",
    "temperature_c": "nvmlDeviceGetTemperature",
    "used_bytes": "nvmlDeviceGetMemoryInfo",
    "other_processes": "nvmlDeviceGetComputeRunningProcesses",
    "ecc": "nvmlDeviceGetEccMode",
    "mig": "nvmlDeviceGetMigMode",
    "driver": "nvmlSystemGetDriverVersion",
}


@pytest.fixture(autouse=True)
def all_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_cpu_has_reasons_instead_of_facts() -> None:
    with Telemetry("cpu") as telemetry:
        pass
    summary = telemetry.summary()
    for name in FACTS:
        assert summary[name] is None
        assert summary["reasons"][name] == "a CPU has no NVML"
    assert telemetry.flags() == []


@pytest.mark.skipif(Nvml().reason is None, reason="this machine has a GPU")
def test_a_machine_without_nvml() -> None:
    with Telemetry("cuda:0") as telemetry:
        pass
    assert telemetry.summary()["energy_j"] is None
    assert telemetry.summary()["reasons"]["energy_j"].startswith("NVML: ")


@pytest.mark.gpu
@pytest.mark.skipif(resolve_device("auto") == "cpu", reason="needs an NVIDIA GPU and CUDA's torch")
def test_a_real_card_at_work() -> None:
    import torch

    a_mk = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    with Telemetry("cuda", period_s=0.05) as telemetry:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            a_mk @ a_mk
            torch.cuda.synchronize()
    summary = telemetry.summary()
    assert summary["num_looks"] >= 10
    for fact in ("energy_j", "power_w", "sm_clock_mhz"):
        assert summary[fact] is None or summary[fact] > 0
        assert (summary[fact] is None) == (fact in summary["reasons"])


def test_a_card_that_nvml_does_not_list() -> None:
    assert Telemetry("cuda:1", Nvml(FakeNvml(["A"]))).snapshot().reasons["power_w"] == (
        "NVML does not list cuda:1"
    )


@pytest.mark.parametrize("fact", QUERY)
def test_a_query_that_fails_costs_its_own_fact_only(fact: str) -> None:
    library = FakeNvml(["NVIDIA H200"], broken={QUERY[fact]})
    library.processes = [os.getpid()]
    with Telemetry("cuda", Nvml(library)) as telemetry:
        pass
    summary = telemetry.summary()
    lost = {name for name in FACTS if QUERY.get(name) == QUERY[fact]}
    assert set(summary["reasons"]) == lost
    assert all(summary[name] is None for name in lost)
    assert all(summary[name] is not None for name in FACTS if name not in lost)
    assert summary["reasons"][fact].startswith(QUERY[fact])


def test_an_older_driver_knows_the_older_name() -> None:
    library = FakeNvml(["A"], broken={"nvmlDeviceGetCurrentClocksEventReasons"})
    assert Telemetry("cuda", Nvml(library)).snapshot().throttle_reasons == ()


def test_the_card_is_watched_while_it_works() -> None:
    library = FakeNvml(["NVIDIA H200"])
    library.processes = [os.getpid(), 1]
    telemetry = Telemetry("cuda", Nvml(library), period_s=0.005)
    first = telemetry.before()
    library.reasons = 0x04 | 0x08 | 0x01
    # The look that is under way may have asked before.
    enough, deadline = len(telemetry._samples) + 2, time.monotonic() + 10
    while len(telemetry._samples) < enough and time.monotonic() < deadline:
        time.sleep(0.005)
    library.reasons = 0x01
    last = telemetry.after()
    summary = telemetry.summary()
    assert first.throttle_reasons == last.throttle_reasons == ()
    assert summary["throttle_reasons"] == ["hardware slowdown", "power cap"]
    assert 0 < summary["power_cap_share"] <= 1
    assert summary["num_looks"] >= 1
    assert last.energy_j is not None
    assert first.energy_j is not None
    assert summary["energy_j"] == pytest.approx(last.energy_j - first.energy_j)
    assert summary["power_w"] == 412.0
    assert (summary["sm_clock_mhz"], summary["memory_clock_mhz"]) == (1980, 3201)
    assert telemetry.flags() == [
        "throttled: hardware slowdown",
        "shared_card: 1 other processes on the card",
    ]


@pytest.mark.parametrize(
    ("processes", "uses_card", "expected"),
    [
        (["me"], True, 0),
        (["me", 1, 2], True, 2),
        ([10, 11], True, 1),
        ([10, 11], False, 2),
        ([], False, 0),
        ([], True, None),
    ],
)
def test_company_on_the_card(
    processes: list[int | str], uses_card: bool, expected: int | None
) -> None:
    library = FakeNvml(["A"])
    library.processes = [os.getpid() if pid == "me" else int(pid) for pid in processes]
    snapshot = Telemetry("cuda", Nvml(library), uses_card=uses_card).snapshot()
    assert snapshot.other_processes == expected
    assert ("other_processes" in snapshot.reasons) == (expected is None)
