"""The measured split by kind: against the prediction, and against what can be counted by hand."""

from collections.abc import Iterator

import pytest
import torch

from tests.small import small_model
from workbench.probe.measuring.history import Event, cuda_events, split, timeline_of
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol

ONCE = Protocol(min_samples=1, precision=None)
KINDS = ("weight_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes", "peak_bytes")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """What a fused kernel takes beside its output on the CPU is much beside so small a peak.

    It has a buffer a thread, and where the CPU multiplies tiles (AMX) packed keys and values.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.backends.mkldnn.flags(enabled=False):
        yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "fields",
    [
        {"kernel": "eager"},
        {"attention": "d_attn", "scope": "decoder", "checkpoint": True},
        {"attention": "himix", "scope": "decoder", "dtype": "float32"},
        {"attention": "d_attn", "pass": "forward"},
    ],
    ids=str,
)
def test_the_split_agrees_with_the_prediction(tmp_path, fields):
    model = small_model("mistral", tmp_path, hidden_size=64, intermediate_size=192)
    cell = make_cell(model=model, num_visual=400, **{"pass": "train", **fields})
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    for name in KINDS:
        assert measured.metrics[name] == pytest.approx(predicted.metrics[name], rel=0.02), name
    kinds = measured.details["memory_by_kind"]
    assert sum(kinds.values()) == measured.metrics["peak_bytes"]
    assert kinds.get("working", 0) == measured.metrics["working_bytes"]
    assert kinds["weights"] == measured.metrics["weight_bytes"]
    for kind, size in predicted.details["memory_by_kind"].items():
        assert kinds.get(kind, 0) == pytest.approx(size, rel=0.02, abs=2048), kind


def test_phases_meet_and_hold_the_peak(tmp_path):
    cell = make_cell(
        model=small_model("mistral", tmp_path), num_visual=40, scope="decoder", **{"pass": "train"}
    )
    record = measure(cell, "cpu", ONCE)
    phases = record.details["memory_by_phase"]
    assert list(phases) == ["forward", "backward", "optimizer"]
    assert phases["forward"]["end"] == phases["backward"]["start"]
    assert phases["backward"]["end"] == phases["optimizer"]["start"]
    assert max(phase["peak"] for phase in phases.values()) == record.metrics["peak_bytes"]
    kept = record.metrics["gradient_bytes"] + record.metrics["activation_bytes"]
    assert kept > 0
    assert (
        phases["forward"]["end"] - phases["forward"]["start"]
        >= (record.metrics["activation_bytes"])
    )


def entry(action, address, size):
    return {"action": action, "addr": address, "size": size, "stream": 0, "time_us": 0}


def test_the_history_of_the_cuda_allocator():
    """As ``torch.cuda.memory._snapshot`` gives it: blocks of 512 bytes, freed when completed."""
    entries = [
        entry("segment_alloc", 1, 2 << 20),
        entry("alloc", 1, 1000),
        entry("alloc", 2, 512),
        entry("free_requested", 1, 1000),
        entry("free_completed", 1, 1000),
        entry("free_completed", 9, 4096),
        entry("alloc", 1, 5),
    ]
    events, ends = cuda_events(entries, {"forward": 3, "backward": 7})
    assert events == [
        Event(1, 1024),
        Event(2, 512),
        Event(1, -1024),
        Event(9, -4096),
        Event(1, 512),
    ]
    assert ends == {"forward": 2, "backward": 5}
    timeline = timeline_of(events, ends, {})
    assert timeline.peak() == (1536, 2)
    assert timeline.by_kind(2) == {"activations": 1536}
    assert timeline.by_kind(5) == {"activations": 512, "working": 512}
    assert split(timeline, ends, 100) == {
        "forward": {"start": 100, "peak": 1636, "end": 1636},
        "backward": {"start": 1636, "peak": 1636, "end": 1124},
    }
