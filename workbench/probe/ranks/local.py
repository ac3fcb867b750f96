"""A cell of several ranks on one machine: started from a worker by torch's elastic launcher.

Each rank is ``python -m workbench.probe.ranks.local FOLDER``, whose ``request.json`` says what to
run; rank 0 leaves its ``record.json`` there. All are children of the worker, so that its guard
ends them with it.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.probe.machine.environment import begun, num_gpus, num_threads
from workbench.probe.machine.launch import check_here, launched
from workbench.probe.machine.nvml import Nvml
from workbench.probe.ranks.helper import wait_for_helper
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.record import Record, Status
from workbench.vocabulary.sweep import Point

if TYPE_CHECKING:
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

LOOPBACK = "127.0.0.1"
ON_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Where gloo and NCCL listen for the other ranks, which are all on this machine."""
MEETING_S = 900
OWN_CRASH = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
"""Signals by which a process ends itself; any other comes from outside."""


def measure_together(
    point: Point, device: str, folder: Path, limit: int | None, nvml: Nvml | None = None
) -> Record:
    """The record of a cell whose ranks are started here, ``limit`` bytes of host memory each.

    ``folder`` is an empty one, for them alone.

    ``unsupported`` where there are fewer GPUs than ranks, ``killed`` where a rank is ended from
    outside. Raises RequestError for a cell that no number of processes can measure.
    """
    from workbench.probe.counting.trace import trace

    nvml = nvml or Nvml()
    facts, clock = begun(point.cell, device, nvml), time.monotonic()

    def ended(status: Status, reason: str) -> Record:
        return Record(
            **facts,
            status=status,
            error=reason,
            flags=[f"{status}: {reason}"],
            duration_s=time.monotonic() - clock,
        )

    count = num_gpus(nvml)
    if device != "cpu" and count < point.ranks:
        cards = f"{count} GPU{'s' * (count != 1)}"
        return ended(Status.UNSUPPORTED, f"world_size {point.ranks}: this machine shows {cards}")
    check_here(point.cell, device)
    try:
        trace(point.cell, pictures=point.pictures)  # Refuses what each rank would refuse.
    except Unsupported as error:
        return ended(Status.UNSUPPORTED, str(error))
    reason = wait_for_helper(point.protocol.max_prepare) if device == "cpu" else None
    if reason is not None:
        return ended(Status.ERROR, reason)
    request = {
        "point": point.model_dump(mode="json", by_alias=True),
        "device": device.partition(":")[0],
        "limit": limit,
    }
    (folder / "request.json").write_text(json.dumps(request))
    failures, record = _run(folder, point.ranks), _record(folder)
    if record is not None and (record.status.done or not failures):
        return record
    outside = "ended from outside"
    for failure in failures:
        if failure.exitcode < 0 and -failure.exitcode not in OWN_CRASH:
            return ended(Status.KILLED, f"{_name(failure)} was {outside} by {_how(failure)}")
    if record is not None:
        return record
    if not failures:
        return ended(Status.ERROR, "the ranks left without a record")
    return ended(Status.ERROR, f"{_name(failures[0])} ended with {_how(failures[0])}")


def _run(folder: Path, ranks: int) -> "list[ProcessFailure]":
    """Start the ranks and wait for them; the failures that ended them, if any did."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    store = meeting_point()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=folder.name,
        rdzv_backend="static",
        rdzv_endpoint=f"{LOOPBACK}:{store.port}",
        rdzv_configs={"rank": 0, "timeout": MEETING_S},
        local_addr=LOOPBACK,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
    )
    command = ["-P", "-m", "workbench.probe.ranks.local", str(folder)]
    variables = {"OMP_NUM_THREADS": str(max(1, num_threads() // ranks)), **ON_LOOPBACK}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        # Those that the launcher ended because of another have its SIGTERM.
        failures = list(error.failures.values())
        return [f for f in failures if f.exitcode != -signal.SIGTERM] or failures
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return []


def meeting_point() -> "TCPStore":
    """The store at which ranks of this machine meet, on a port of the loopback interface.

    torch's launcher would open one on every interface. It takes up this one instead: a store of
    several tenants is shared by all of its process that name the port (torch, TCPStore.cpp).
    """
    from torch.distributed import TCPStore

    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    return TCPStore(
        LOOPBACK,
        port,
        is_master=True,
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=listener.detach(),
    )


def _record(folder: Path) -> Record | None:
    """What rank 0 left; None where it was ended before, or while it wrote."""
    try:
        return Record.from_document(json.loads((folder / "record.json").read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _name(failure: "ProcessFailure") -> str:
    return f"rank {failure.local_rank}"


def _how(failure: "ProcessFailure") -> str:
    if Path(failure.error_file).is_file():
        return " ".join(failure.message.split())
    if failure.exitcode < 0:
        return signal.Signals(-failure.exitcode).name
    return f"exit status {failure.exitcode}"


def main() -> None:
    """One rank."""
    folder = Path(sys.argv[1])
    request: dict[str, Any] = json.loads((folder / "request.json").read_text())
    launch = launched()
    assert launch is not None, "the launcher says who we are"
    from workbench.probe.ranks.ranks import measure_on_ranks

    def emit(record: Record) -> None:
        (folder / "record.json").write_text(json.dumps(record.document()))

    point = Point.model_validate(request["point"])
    measure_on_ranks(
        point.model_copy(update={"device": request["device"]}), launch, emit, request["limit"]
    )


if __name__ == "__main__":
    from torch.distributed.elastic.multiprocessing.errors import record

    record(main)()
