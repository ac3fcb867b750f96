"""Ceilings: measured, met by what a cell achieves, and found again instead of measured twice."""

import time

import pytest

from tests.small import small_model
from workbench.probe.measuring.ceilings import measure_ceiling
from workbench.probe.predicting.rates import achieved
from workbench.probe.workers.client import Client
from workbench.store import Store
from workbench.sweep.run import run_sweep
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Ceiling
from workbench.vocabulary.sweep import Grid, Sweep

QUICK = Protocol(min_samples=1, precision=None, max_seconds=1.0)
COUNTED = {"flops": 4000, "flops_causal": 2000, "bytes_moved": 100, "time_s": 2.0}


def test_a_cpu_reaches_something_within_seconds():
    start = time.monotonic()
    found = measure_ceiling("float32", "cpu")
    assert time.monotonic() - start < 20
    assert 1e8 < found.flops_s < 1e14
    assert 1e7 < found.bytes_s < 1e13


def test_the_roofline_of_a_ceiling():
    ceiling = Ceiling(1000.0, 10.0)
    assert [ceiling.at(x) for x in (1, 100, 5000)] == [10, 1000, 1000]


@pytest.mark.parametrize(("skipped", "flops"), [(0, 4000), (2000, 2000)])
def test_what_the_kernel_did_over_the_time(skipped, flops):
    found = achieved(COUNTED, skipped, Ceiling(5000.0, 400.0))
    assert found["achieved_flops_s"] == flops / 2
    assert found["achieved_bytes_s"] == 50
    assert found["arithmetic_intensity"] == flops / 100
    assert found["ceiling_fraction"] == pytest.approx(flops / 2 / 5000)
    assert "ceiling_fraction" not in achieved(COUNTED, 0, None)
    assert achieved({**COUNTED, "time_s": None}, 0, None) == {}


class Counting(Client):
    """Counts how often ceilings are measured."""

    measured = 0

    def ceiling(self, dtype: str, device: str) -> Ceiling:
        self.measured += 1
        return super().ceiling(dtype, device)


def test_a_sweep_measures_them_once_for_an_environment(tmp_path):
    model, path = small_model("mistral", tmp_path), tmp_path / "s.db"
    grid = Grid(models=(model,), visual=(4, 8), device="cpu", dtypes=("float32",), protocol=QUICK)
    with Counting() as client:
        for new_run in (False, True):
            assert run_sweep(Sweep(name="s", grids=(grid,)), path, new_run, client).num_ran == 2
        assert client.measured == 1
        more = grid.model_copy(update={"dtypes": ("bfloat16",)})
        run_sweep(Sweep(name="t", grids=(more,)), path, client=client)
        assert client.measured == 2
    with Store.open(path) as store:
        facts = store.runs()[0].environment
        found = store.ceilings(facts.fingerprint, "cpu")
        records = store.records()
        assert store.ceilings("another", "cpu") == {}
    assert set(found) == {"float32", "bfloat16"}
    for record in records:
        known = found[record.cell.dtype]
        assert record.metrics["ceiling_flops_s"] == known.flops_s
        assert record.metrics["ceiling_bytes_s"] == known.bytes_s
        assert record.metrics["ceiling_fraction"] > 0
