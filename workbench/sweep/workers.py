"""How many workers a sweep has on this machine, and what each of them gets of it."""

import os

from workbench.probe.machine.environment import device_name, num_gpus, num_threads
from workbench.probe.machine.nvml import Nvml
from workbench.probe.workers.seat import WHOLE_MACHINE, Seat
from workbench.sweep.plan import Task, check_ranks
from workbench.vocabulary.errors import RequestError

MOST_PREDICTORS = 8
"""Workers that predict; each takes half a gigabyte."""
CELLS_A_PREDICTOR = 24
"""Cells that are worth a worker more, which takes some seconds to start."""


def seats(tasks: list[Task], asked: int | None = None, nvml: Nvml | None = None) -> list[Seat]:
    """A seat a worker: one worker a GPU, or as many on the CPU as ``asked`` for (one by default).

    Workers on the CPU share its cores evenly, at least one thread each, and the free memory. Where
    cells are only predicted, which one core does at a time, there is a worker for each core.
    Raises RequestError for more workers than GPUs, and for cells that cannot be spread over them.
    """
    if asked is not None and asked < 1:
        raise RequestError(f"workers {asked}: at least 1 is needed")
    check_ranks(tasks)
    measured = [task for task in tasks if task.point.source == "measured"]
    if tasks and not measured and asked is None:
        cores, worth = num_threads(), len(tasks) // CELLS_A_PREDICTOR
        count = max(1, min(cores, worth, MOST_PREDICTORS))
        return [Seat(share=1 / count)] * count
    on_gpu = [task for task in measured if task.device != "cpu"]
    count = _on_gpus(on_gpu, asked, nvml or Nvml()) if on_gpu else asked or 1
    if count == 1:
        return [WHOLE_MACHINE]
    only_gpu = bool(on_gpu) and len(on_gpu) == len(measured)
    threads = None if only_gpu else max(1, num_threads() // count)
    cards = _visible(count) if on_gpu else [None] * count
    return [Seat(card, threads, 1 / count) for card in cards]


def _on_gpus(tasks: list[Task], asked: int | None, nvml: Nvml) -> int:
    """The number of workers where each has a GPU of its own."""
    bound = _bound(tasks)
    if bound is not None:
        if asked not in (None, 1):
            raise RequestError(f"workers {asked}: {bound}; use --workers 1")
        return 1
    cards = num_gpus(nvml)
    count = cards if asked is None else asked
    if count > cards:
        have = f"this process sees {cards} GPU{'s' * (cards != 1)}"
        raise RequestError(f"workers {count}: each needs a GPU of its own, and {have}")
    names = sorted({_name(number, nvml) for number in range(count)})
    if len(names) <= 1:
        return count
    if asked is None:
        return 1
    raise RequestError(
        f"workers {count}: the GPUs differ ({', '.join(names)}), and a run has one kind; "
        "choose with CUDA_VISIBLE_DEVICES"
    )


def _name(number: int, nvml: Nvml) -> str:
    if nvml.reason is None:
        return str(nvml.ask("nvmlDeviceGetName", nvml.visible()[number]).value)
    return device_name(f"cuda:{number}", nvml)


def _bound(tasks: list[Task]) -> str | None:
    """Why these tasks cannot be spread over workers with one GPU each, if they cannot."""
    for task in tasks:
        if ":" in task.device:
            return f"the sweep names {task.device}, and a worker sees one GPU; say cuda"
        if task.point.ranks > 1:
            return f"the sweep has cells of {task.point.ranks} ranks, which take a GPU each"
    return None


def _visible(count: int) -> list[str | None]:
    """The words by which CUDA knows the first cards that it shows this process."""
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    words = range(count) if variable is None else variable.split(",")[:count]
    return [str(word).strip() for word in words]
