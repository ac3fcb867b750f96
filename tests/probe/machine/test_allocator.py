"""The allocator's setting: what a worker is started with, and where it cannot be had."""

from pathlib import Path

import pytest

from workbench.probe.machine.allocator import allocator_flags, check_allocator, variables_of
from workbench.probe.workers.client import Client
from workbench.sweep.plan import plan
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.sweep import Grid, Sweep, make_point

EXPANDABLE = "expandable_segments:True"


def cell(setting: str) -> Cell:
    return make_cell(num_visual=8, allocator=setting)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({}, EXPANDABLE),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, f"max_split_size_mb:64,{EXPANDABLE}"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"}, EXPANDABLE),
    ],
)
def test_a_worker_is_told_what_the_cell_names_and_keeps_the_rest(
    there: dict[str, str], told: str
) -> None:
    assert variables_of("expandable_segments", there) == {
        "PYTORCH_ALLOC_CONF": told,
        "PYTORCH_CUDA_ALLOC_CONF": told,
    }
    assert variables_of("default", there) == {}


def test_a_cpu_has_no_such_allocator() -> None:
    check_allocator(cell("default"), "cpu")
    check_allocator(cell("expandable_segments"), "cuda:1")
    with pytest.raises(RequestError, match="allocator 'expandable_segments': is a setting of"):
        check_allocator(cell("expandable_segments"), "cpu")


def test_a_process_that_was_started_without_it_refuses() -> None:
    there = variables_of("expandable_segments", {})
    assert allocator_flags(cell("expandable_segments"), there) == []
    with pytest.raises(RequestError, match="was started without it; set PYTORCH_ALLOC_CONF="):
        allocator_flags(cell("expandable_segments"), {})
    assert allocator_flags(cell("default"), {}) == []
    assert allocator_flags(cell("default"), there) == [
        f"allocator: configured by the environment: {EXPANDABLE}"
    ]


def test_a_worker_is_started_with_the_setting_and_replaced_for_another() -> None:
    point = make_point(cell=make_cell(num_visual=8), source="measured", device="cpu")

    def environment(pid: int) -> dict[str, str]:
        lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)

    with Client(allocator="expandable_segments") as client:
        pid = client.worker.pid
        assert environment(pid)["PYTORCH_ALLOC_CONF"] == EXPANDABLE
        client._suit(point, "cpu")
        assert client.worker.pid == pid  # no concern of a CPU
        client._suit(point, "cuda")
        assert client.worker.pid != pid
        assert environment(client.worker.pid).get("PYTORCH_ALLOC_CONF") != EXPANDABLE


def test_a_sweep_on_a_cpu_refuses_it_before_anything_runs() -> None:
    grid = Grid(device="cpu", visual=8, options={"allocator": "expandable_segments"})
    with pytest.raises(RequestError, match="allocator 'expandable_segments': is a setting of"):
        plan(Sweep(name="s", grids=(grid,)))
