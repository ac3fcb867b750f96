"""Which cells are replayed as a graph, how often, and what a failed capture leaves behind."""

import pytest
import torch

from tests.small import small_model
from workbench.probe.measuring import graph
from workbench.probe.measuring.graph import repeat, replay, wants_graph
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol


@pytest.mark.parametrize(
    ("pass_", "seconds", "asked", "wanted"),
    [
        ("forward", 0.002, None, True),
        ("decode", 0.019, None, True),
        ("forward", 0.021, None, False),
        ("train", 0.002, None, False),
        ("train", 3.0, True, True),
        ("forward", 0.002, False, False),
    ],
)
def test_short_cells_without_a_backward_are_replayed_unasked(pass_, seconds, asked, wanted):
    cell = make_cell(num_visual=8, **{"pass": pass_})
    assert wants_graph(cell, Protocol(graph=asked), seconds) is wanted


@pytest.mark.parametrize(("seconds", "count"), [(1e-4, 200), (2e-3, 100), (0.5, 10)])
def test_replays_are_enough_for_long_enough(seconds, count):
    ran = []

    def run():
        ran.append(seconds)
        return seconds

    assert repeat(run) == [seconds] * count
    assert len(ran) == count + 1  # the first uploads the graph


def test_a_capture_that_fails_is_a_reason_and_costs_the_worker(monkeypatch):
    def refuse(workload):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(graph, "_capture", refuse)
    found = replay(type("Workload", (), {"context": type("C", (), {"device": None})}))
    assert found.metrics == {"device_time_s": None}
    assert found.flags == [
        "device_time_s: no CUDA graph was captured: operation not permitted when stream is "
        "capturing"
    ]
    assert found.details() == {"capture_failed": True}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("attention", ["s_attn", "d_attn"])
@pytest.mark.parametrize("pass_", ["forward", "decode"])
def test_a_small_cell_is_replayed_on_a_card(tmp_path, attention, pass_):
    from workbench.probe.measuring.measure import measure

    wide = {"hidden_size": 256, "head_dim": 64}
    cell = make_cell(
        model=small_model("mistral", tmp_path, **wide),
        attention=attention,
        kernel="flash",
        num_visual=256,
        **{"pass": pass_},
    )
    record = measure(cell, "cuda", Protocol(min_samples=10, precision=None))
    assert record.status == "ok"
    assert "capture_failed" not in record.details, record.flags
    assert 0 < record.metrics["device_time_s"] < record.metrics["time_s"]
    assert 0 < record.metrics["busy_share"] < 0.9  # a card waits for Python here
    assert any(flag.startswith("host_bound: ") for flag in record.flags)
