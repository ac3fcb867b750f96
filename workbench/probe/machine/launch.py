"""Several processes, one a rank, started by torchrun or deepspeed; nothing here imports torch."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from workbench.probe.machine.environment import cuda_index, num_gpus, resolve_device
from workbench.probe.machine.nvml import Nvml
from workbench.vocabulary.agreement import check_states
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError


class Launch(NamedTuple):
    """This process among those that were started together."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int


def launched() -> Launch | None:
    """What torchrun or deepspeed said to this process; None where neither started it."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    values = [os.environ.get(name, "") for name in names]
    if not all(value.isdecimal() for value in values) or "MASTER_ADDR" not in os.environ:
        return None
    rank, local_rank, world = map(int, values)
    local_world = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or str(world)
    return Launch(rank, local_rank, world, int(local_world))


def check_ranks(cell: Cell, launch: Launch | None, device: str) -> None:
    """Raise RequestError where the cell cannot be measured by the processes that there are.

    Called before anything is built: world sizes, GPUs, and what deepspeed needs.
    """
    check_states(cell)
    ranks = 1 if launch is None else launch.world_size
    if launch is None and cell.world_size > 1:
        n = cell.world_size
        raise RequestError(
            f"world_size {n}: this is one process; start {n} with 'torchrun --nproc-per-node {n} "
            f"-m workbench measure …' or 'deepspeed --num_gpus {n} --module workbench measure …', "
            "or emulate one ZeRO-3 rank with --emulate all"
        )
    if ranks != cell.world_size:
        raise RequestError(
            f"world_size {cell.world_size}: {ranks} processes were started; give --world-size "
            f"{ranks} or start {cell.world_size}"
        )
    if not cell.under_deepspeed:
        return
    check_together(cell)
    if launch is None:
        raise RequestError(
            f"zero {cell.zero}: runs under deepspeed, in a process of its own; ask 'workbench "
            "measure' or a sweep"
        )
    place = resolve_device(device)
    count = num_gpus(Nvml())
    if cuda_index(place) is not None and launch.local_world_size > count:
        raise RequestError(
            f"world_size {cell.world_size}: {launch.local_world_size} processes were started on "
            f"this machine, which shows {count} GPUs; start one a GPU"
        )
    check_deepspeed(place)


def check_start(cell: Cell, device: str, nvml: Nvml | None = None) -> None:
    """Raise RequestError where this machine cannot start the cell's ranks, one a GPU."""
    nvml = nvml or Nvml()
    place, count = resolve_device(device, nvml), num_gpus(nvml)
    if place != "cpu" and count < cell.world_size:
        cards = f"{count} GPU{'s' * (count != 1)}"
        raise RequestError(
            f"world_size {cell.world_size}: this machine shows {cards}; start the ranks of "
            "several machines with torchrun, or emulate one ZeRO-3 rank with --emulate all"
        )
    check_here(cell, place)


def check_here(cell: Cell, place: str) -> None:
    """Raise RequestError where ranks cannot run here, however many GPUs there are."""
    check_together(cell)
    if cuda_index(place):
        raise RequestError(f"device {place}: {cell.world_size} ranks take a GPU each; say cuda")
    check_deepspeed(place)


def check_together(cell: Cell) -> None:
    """Raise RequestError where no number of processes can measure the cell together."""
    check_states(cell)
    if not cell.optimizes:
        raise RequestError(
            f"world_size {cell.world_size}: only a train pass of scope decoder or lvlm runs on "
            "several ranks; leave --world-size out"
        )
    if cell.scope == "lvlm" and not cell.num_visual:
        raise RequestError("num_visual 0: leaves the tower without an image; use scope decoder")
    if cell.compile:
        raise RequestError("compile: several ranks run eager mode; leave it out")


def helper_needs() -> list[str]:
    """What deepspeed compiles its helper for the CPU with and is not on PATH."""
    compiler = os.environ.get("CXX") or "c++"
    missing = [] if shutil.which(compiler) else [f"a C++ compiler ({compiler}, of g++)"]
    return missing if shutil.which("ninja", path=search_path()) else [*missing, "ninja"]


def search_path() -> str:
    """PATH, and the programs that were installed beside this interpreter."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def check_deepspeed(place: str) -> None:
    """Raise RequestError where deepspeed, or what it compiles with, is missing here."""
    if find_spec("deepspeed") is None:
        raise RequestError(
            "deepspeed is not installed; pip install 'visual-token-workbench[train]'"
        )
    missing = helper_needs() if place == "cpu" else []
    if missing:
        raise RequestError(
            f"deepspeed compiles a helper where ranks run on the CPU: {' and '.join(missing)} "
            "not on PATH"
        )
