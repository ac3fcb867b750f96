"""Measured records on the CPU: samples, statuses, which kernel ran, limits that are flags."""

import pytest

from tests.small import small_model
from workbench.errors import RequestError
from workbench.probe.measuring.measure import measure
from workbench.record import Status
from workbench.spec import Protocol, make_cell

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


def test_no_time_even_for_a_second_iteration(small):
    protocol = Protocol(max_seconds=1e-6)
    record = measure(make_cell(model=small, num_visual=40), "cpu", protocol)
    assert record.metrics["num_samples"] == 1
    assert record.metrics["peak_bytes"] is None
    named = {flag.split(":")[0] for flag in record.flags}
    assert {"no_warmup", "few_samples", "peak_bytes"} <= named


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
