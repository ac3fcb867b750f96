"""A threshold measured for real: the worker meets its limit at one end and not the other."""

import pytest

from tests.small import small_model
from workbench.probe.workers.measured_limit import Fresh, measured_limit, num_ready, trials_in
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Failure, RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Record, Status
from workbench.vocabulary.sweep import make_point

CAP = 3 * 10**8


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model("mistral", tmp_path_factory.mktemp("models"))


@pytest.mark.slow
def test_both_ends_are_run_and_the_prediction_is_near(small):
    cell = make_cell(
        model=small,
        kernel="eager",
        num_visual=0,
        dtype="float32",
        memory_cap=CAP,
        **{"pass": "train"},
    )
    kept: list[Record] = []
    found = measured_limit(cell, "cpu", Protocol(), kept.append)
    assert (found.source, found.device, found.capacity_bytes) == ("measured", "cpu", CAP)
    assert found.fails_at - found.max_visual <= max(1, 0.01 * found.max_visual)
    # The first iteration of a trial is its preparation: a proof of three has two samples.
    by_size = {(r.cell.num_visual, len(r.samples.get("time_s", ()))): r.status for r in kept}
    assert by_size[found.max_visual, 2] is Status.OK
    assert by_size[found.fails_at, 0] is Status.OOM
    assert found.num_oom == sum(r.status is Status.OOM for r in kept) <= 12
    assert abs(found.predicted_max_visual / found.max_visual - 1) < 0.15
    assert [t["num_visual"] for t in found.trials] == [r.cell.num_visual for r in kept]
    assert found.stopped_by == "working"
    assert any(flag.startswith("memory_cap: ") for flag in found.flags)
    # A search that goes on where an earlier one stopped runs only what that one did not.
    known = trials_in(kept, cell)
    assert known[found.max_visual] == (Status.OK, 3)
    ran: list[Record] = []
    again = measured_limit(cell, "cpu", Protocol(), ran.append, known)
    assert not {r.cell.num_visual for r in ran} & {
        v for v, (status, iterations) in known.items() if status is Status.OOM or iterations > 1
    }
    assert again.max_visual == pytest.approx(found.max_visual, rel=0.02)


def test_what_is_no_out_of_memory_ends_the_search(small):
    cell = make_cell(model=small, num_visual=0, dtype="float32", memory_cap=CAP)
    kept = []
    with pytest.raises(Failure, match="ended as timeout"):
        measured_limit(cell, "cpu", Protocol(timeout_s=0.01), kept.append)
    assert [r.status for r in kept] == [Status.TIMEOUT]


def test_a_cpu_needs_a_cap_that_is_there(small):
    cell = make_cell(model=small, num_visual=0)
    with pytest.raises(RequestError, match="give --memory-cap BYTES"):
        measured_limit(cell, "cpu", Protocol())
    with pytest.raises(RequestError, match="give less"):
        measured_limit(cell.replace(memory_cap=10**15), "cpu", Protocol())


def test_stored_trials_are_those_of_the_cell_whatever_its_size(small):
    cell = make_cell(model=small, num_visual=0, dtype="float32")
    facts = {"source": "measured", "device": "cpu", "status": "ok"}
    ran = Record(cell=cell.replace(num_visual=7), details={"iterations": 3}, **facts)
    other = Record(cell=cell.replace(num_visual=9, kernel="eager"), **facts)
    assert trials_in([ran, other], cell) == {7: (Status.OK, 3)}


def test_as_many_workers_are_made_ready_as_cores_and_memory_allow(monkeypatch):
    module = "workbench.probe.workers.measured_limit"
    for cores, free, ready in ((16, 2**40, 6), (4, 2**40, 3), (16, 5 * 2**30, 2), (1, 0, 1)):
        monkeypatch.setattr(f"{module}.num_threads", lambda cores=cores: cores)
        monkeypatch.setattr(f"{module}.free_memory_bytes", lambda free=free: free)
        assert num_ready("cuda") == ready
        assert num_ready("cpu") == 1


def test_every_trial_has_a_worker_of_its_own_and_none_is_left(small):
    cell = make_cell(model=small, num_visual=8, dtype="float32")
    point = make_point(
        cell=cell, source="measured", device="cpu", protocol={"iterations": 1, "timeout_s": 60}
    )
    workers = []
    with Fresh(cell, 2) as fresh:
        for _ in range(2):
            client = fresh._ready[0].result()
            workers.append(client.worker)
            assert fresh.run(point).status is Status.OK
        workers += [future.result().worker for future in fresh._ready]
    assert len({worker.pid for worker in workers}) == 4
    assert all(worker._process.poll() is not None for worker in workers)
