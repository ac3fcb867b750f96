"""Every cell starts on the same card: nothing of an earlier one is held, cached or compiled."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small import small_model
from workbench.probe.measuring.card import clear_card
from workbench.probe.measuring.measure import measure
from workbench.probe.workers.client import Client
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.sweep import Point, make_point

needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
WIDE = {"hidden_size": 512, "intermediate_size": 1024, "head_dim": 64}
BYTES = ("peak_bytes", "reserved_bytes", "weight_bytes", "activation_bytes", "working_bytes")


def test_compiled_code_is_forgotten() -> None:
    """A second size is compiled with sizes left open, unless the first is forgotten."""
    found = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        found.append(any(isinstance(each, torch.SymInt) for each in inputs))
        return graph

    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    clear_card("cpu")
    for size in (4, 5):
        torch.compile(double, backend=backend)(torch.ones(size))
    clear_card("cpu")
    torch.compile(double, backend=backend)(torch.ones(6))
    assert found == [False, True, False]


def point(cell: Cell) -> Point:
    protocol = {"min_samples": 3, "precision": None, "graph": True}
    return make_point(cell=cell, source="measured", device="cuda", protocol=protocol)


@pytest.mark.gpu
@needs_card
def test_a_cell_first_last_and_alone_takes_the_same_bytes(tmp_path: Path) -> None:
    model = small_model("mistral", tmp_path, **WIDE)
    train = {"pass": "train"}
    cell = make_cell(model=model, kernel="flash", num_visual=4096, **train)
    others = (
        cell.replace(num_visual=65_536),
        cell.replace(kernel="eager", num_visual=2048),
        cell.replace(kernel="cudnn", attention="d_attn"),
        cell.replace(scope="decoder", num_visual=8192),
    )
    with Client() as client:
        first = client.run(point(cell))
        worker = client.worker.pid
        assert {client.run(point(other)).status for other in others} == {"ok"}
        last = client.run(point(cell))
        if "capture_failed" not in first.details:
            assert client.worker.pid == worker
    with Client() as fresh:
        alone = fresh.run(point(cell))
    for name in BYTES:
        values = [record.metrics[name] for record in (first, last, alone)]
        assert len(set(values)) == 1, (name, values)


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("attention", ["s_attn", "d_attn"])
def test_compiling_flex_is_preparation_and_never_a_time(tmp_path: Path, attention: str) -> None:
    model = small_model("mistral", tmp_path, **WIDE)
    cell = make_cell(model=model, kernel="flex", attention=attention, num_visual=1024, num_text=63)
    protocol = Protocol(min_samples=5, precision=None, max_seconds=1)
    record = measure(cell, "cuda", protocol)
    assert record.status == "ok", record.error
    assert record.metrics["num_samples"] == 5
    assert record.metrics["prepare_s"] > 20 * max(record.samples["time_s"])


@pytest.mark.gpu
@needs_card
def test_what_a_card_says_is_a_fact_or_has_a_reason(tmp_path: Path) -> None:
    model = small_model("mistral", tmp_path, **WIDE)
    cell = make_cell(model=model, kernel="flash", num_visual=16_384, **{"pass": "train"})
    record = measure(cell, "cuda", Protocol(min_samples=200, precision=None, max_seconds=5))
    assert record.status == "ok", record.error
    reasons = {flag.partition(":")[0] for flag in record.flags}
    for name in ("sm_clock_hz", "power_cap_share", "busy_share", "power_w", "energy_j"):
        value = record.metrics[name]
        assert value is not None or name in reasons
        assert value is None or value > 0 or name == "power_cap_share"
    assert "throttled" not in reasons or record.details["telemetry"]["throttle_reasons"] != [
        "power cap"
    ]
    assert record.metrics["busy_share"] <= 1


@pytest.mark.gpu
@needs_card
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_second_card_is_timed_by_its_own_stream(tmp_path: Path) -> None:
    model = small_model("mistral", tmp_path, **WIDE)
    cell = make_cell(model=model, kernel="flash", num_visual=65_536, **{"pass": "train"})
    protocol = Protocol(min_samples=5, precision=None)
    first, second = (measure(cell, f"cuda:{n}", protocol) for n in (0, 1))
    assert second.metrics["time_s"] == pytest.approx(first.metrics["time_s"], rel=0.5)
