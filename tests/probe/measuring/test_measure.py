"""Measured records on the CPU: samples, statuses, which kernel ran, limits that are flags."""

import pytest

from tests.small import small_model
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure, utilisation_of
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

THREE = Protocol(min_samples=3, precision=None)


@pytest.fixture
def small(tmp_path):
    return small_model("mistral", tmp_path)


@pytest.mark.parametrize(
    ("fields", "operators"),
    [
        ({"kernel": "eager"}, {"bmm"}),
        ({"kernel": "sdpa"}, {"_scaled_dot_product_flash_attention_for_cpu"}),
        (
            {"attention": "d_attn", "pass": "train"},
            {
                "_scaled_dot_product_flash_attention_for_cpu",
                "_scaled_dot_product_flash_attention_for_cpu_backward",
            },
        ),
    ],
)
def test_the_record_says_which_kernel_ran(small, fields, operators):
    record = measure(make_cell(model=small, num_visual=40, **fields), "cpu", THREE)
    assert record.status == Status.OK
    assert set(record.details["attention_operators"]) == operators


def test_every_sample_is_kept_and_its_median_is_the_time(small):
    cell = make_cell(model=small, num_visual=40, scope="decoder", **{"pass": "train"})
    record = measure(cell, "cpu", THREE)
    assert set(record.samples) == {"time_s", "forward_s", "backward_s", "optimizer_s"}
    assert all(len(times) == 3 for times in record.samples.values())
    assert record.metrics["time_s"] == sorted(record.samples["time_s"])[1]
    assert record.metrics["num_samples"] == 3
    assert record.metrics["mfu"] is None
    assert any(flag.startswith("mfu: ") for flag in record.flags)


def test_a_precise_measurement_says_when_it_ran_out_of_time(small):
    protocol = Protocol(min_samples=10_000, max_seconds=1.0)
    record = measure(make_cell(model=small, num_visual=40), "cpu", protocol)
    assert record.status == Status.OK
    assert 0 < record.metrics["num_samples"] < 10_000
    assert any(flag.startswith("few_samples: ") for flag in record.flags)


def test_no_time_even_for_a_second_iteration_is_no_time(small):
    protocol = Protocol(max_prepare=1e-6)
    record = measure(make_cell(model=small, num_visual=40), "cpu", protocol)
    assert record.status == Status.OK
    assert record.metrics["num_samples"] == 0
    assert record.metrics["prepare_s"] > 0
    missing = {name for name, value in record.metrics.items() if value is None}
    assert {"time_s", "peak_bytes", "mfu"} <= missing
    assert missing <= {flag.split(":")[0] for flag in record.flags}


def test_a_cold_iteration_is_never_a_time(small):
    """Compiling takes seconds, and ``max_seconds`` begins when it is over."""
    protocol = Protocol(min_samples=3, precision=None, max_seconds=0.5)
    record = measure(make_cell(model=small, num_visual=40, compile=True), "cpu", protocol)
    assert record.metrics["prepare_s"] > 10 * record.metrics["time_s"]
    assert record.metrics["num_samples"] == 3
    assert max(record.samples["time_s"]) < 0.5
    assert not any(flag.startswith("few_samples") for flag in record.flags)


def test_a_trial_s_first_iteration_prepares_the_others(small):
    cell = make_cell(model=small, num_visual=40)
    alone = measure(cell, "cpu", Protocol(iterations=1))
    assert alone.metrics["time_s"] is None
    assert alone.metrics["prepare_s"] > 0
    three = measure(cell, "cpu", Protocol(iterations=3))
    assert len(three.samples["time_s"]) == three.metrics["num_samples"] == 2


def test_a_graph_needs_a_card(small):
    with pytest.raises(RequestError, match="graph: replays a CUDA graph, and a CPU has none"):
        measure(make_cell(model=small, num_visual=8), "cpu", Protocol(graph=True))


def test_mfu_at_the_clock_that_was_there():
    """The H100's peak is stated for 1,830 MHz: at 1,525 MHz five sixths of it are there."""
    cell = make_cell(model="tinyllama-1.1b", num_visual=64)
    metrics = {"time_s": 1e-3, "sm_clock_hz": 1.525e9}
    assert utilisation_of(cell, "NVIDIA H100 80GB HBM3", trace(cell), metrics) == []
    assert metrics["mfu_at_clock"] == pytest.approx(metrics["mfu"] * 1.83 / 1.525)
    metrics = {"time_s": 1e-3, "sm_clock_hz": 1.525e9}
    (flag,) = utilisation_of(cell, "NVIDIA B200", trace(cell), metrics)
    assert flag.startswith("mfu_at_clock: none: NVIDIA's datasheet")
    assert metrics["mfu_at_clock"] is None


def test_a_kernel_that_cannot_serve_is_a_result(tmp_path):
    cell = make_cell(model=small_model("gemma2", tmp_path), num_visual=8)
    record = measure(cell, "cpu", THREE)
    assert record.status == Status.UNSUPPORTED
    assert "soft-capping" in record.error
    assert "gemma2" in record.error


def test_what_cannot_be_measured_here_is_refused(small):
    with pytest.raises(RequestError, match="world_size 2: this is one process"):
        measure(
            make_cell(
                model=small,
                num_visual=8,
                scope="decoder",
                zero=2,
                world_size=2,
                **{"pass": "train"},
            ),
            "cpu",
            THREE,
        )
    with pytest.raises(RequestError, match="offload"):
        measure(make_cell(model=small, num_visual=8, offload=True), "cpu", THREE)
