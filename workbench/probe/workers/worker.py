"""The child process that runs cells one after another, a module to be run by ``python -m``.

It speaks JSON, one document a line: a request on standard input, its answer on standard output.
The first line that it writes says that it is ready. ``client.py`` is the other end.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

from workbench.probe.workers.guard import (
    fork_under_guard,
    offer_to_the_kernel,
    watch_over_guard,
)

TRACEBACK_LINES = 20


def main() -> None:
    """Serve requests until standard input ends."""
    fork_under_guard()
    offer_to_the_kernel()
    # Libraries print: they get standard error, and children they start get no input of ours.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    watch_over_guard(requests.fileno())
    serve(requests, answers)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer every request: ``{"do": …}`` to ``{"answer": …}`` or ``{"request_error": …}``."""
    import torch  # noqa: F401 - ready means that the slow import is done

    tasks: dict[str, Callable[[dict[str, Any]], Any]] = {
        "run": _run,
        "check": _check,
        "prepare": _prepare,
        "estimate": _estimate,
        "ceiling": _ceiling,
    }
    _write(answers, {"ready": os.getpid()})
    for line in requests:
        request = json.loads(line)
        try:
            answer = {"answer": tasks[request["do"]](request)}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            answer = _failure(error)
        _write(answers, answer)


def _failure(error: Exception) -> dict[str, Any]:
    from workbench.vocabulary.errors import RequestError

    if isinstance(error, RequestError):
        return {"request_error": error.faults}
    return {"fault": _one_line(error), "traceback": _tail(error)}


def _write(answers: IO[bytes], document: dict[str, Any]) -> None:
    answers.write(json.dumps(document).encode() + b"\n")
    answers.flush()


@cache
def _base_bytes() -> int:
    """What this process holds before its first limited cell, once all that is lazy has happened.

    Above all torch's threads: when memory is limited, their stacks may not fit any more.
    """
    import torch

    from workbench.probe.machine.memory_limit import held_bytes
    from workbench.probe.predicting.predict import predict
    from workbench.vocabulary.cell import Cell

    predict(Cell(num_visual=1), "cpu")
    a = torch.ones(512, 512)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        (a @ a).exp().sum().item()
    return held_bytes()


def _run(request: dict[str, Any]) -> dict[str, Any]:
    """A point, its device and limit, folders and ceilings -> a record."""
    from workbench.probe.machine.environment import device_name, environment
    from workbench.probe.machine.memory_limit import limited
    from workbench.probe.measuring.measure import measure
    from workbench.probe.predicting.predict import predict
    from workbench.vocabulary.errors import RequestError
    from workbench.vocabulary.record import Ceiling, Record, Status
    from workbench.vocabulary.sweep import Point

    point = Point.model_validate(request["point"])
    device, limit, trace = request["device"], request["limit"], request["trace"]
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    try:
        if point.source == "predicted":
            record = predict(
                point.cell, device, point.calibration, point.pictures, point.protocol.emulate
            )
        elif point.through_launcher:
            from workbench.probe.ranks.local import measure_together

            folder = Path(request["folder"])
            record = measure_together(point, device, folder, request["limit"])
            if trace:
                flag = "trace: works with one process"
                record = record.model_copy(update={"flags": [*record.flags, flag]})
        else:
            traces = Path(trace) if trace else None
            rates = request["ceilings"].get(point.cell.dtype)
            ceiling = None if rates is None else Ceiling(*rates)
            with limited(None if limit is None else _base_bytes() + limit):
                record = measure(
                    point.cell,
                    device,
                    point.protocol,
                    traces,
                    point.pictures,
                    ceiling,
                    Path(request["snapshot"]) if request["snapshot"] else None,
                )
    except RequestError:
        raise
    except Exception as error:  # noqa: BLE001 - a fault in a cell is a row, not the end of a sweep
        measured = point.source == "measured"
        record = Record(
            cell=point.cell,
            source=point.source,
            device=device_name(device) if measured else device,
            status=Status.ERROR,
            error=_one_line(error),
            flags=[f"error: {_one_line(error)}"],
            details={"traceback": _tail(error), "cuda_fault": _is_cuda_fault(error)},
            environment=environment(device if measured else "cpu"),
            started_at=started,
            duration_s=time.monotonic() - clock,
        )
    return record.document()


def _ceiling(request: dict[str, Any]) -> list[float]:
    """``dtype`` and ``device`` -> FLOP/s and bytes/s."""
    from workbench.probe.measuring.ceilings import measure_ceiling

    return list(measure_ceiling(request["dtype"], request["device"]))


def _check(request: dict[str, Any]) -> None:
    """Raise RequestError for all that is wrong with ``{"cells": […]}``; nothing is run."""
    from workbench.lvlm.cell_check import check
    from workbench.lvlm.models import resolve
    from workbench.lvlm.towers import tower_of
    from workbench.probe.predicting.capacity import cap_bytes
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.errors import Faults

    faults = Faults()
    for fields in request["cells"]:
        cell = Cell.model_validate(fields)
        with faults:
            check(cell)
            if cell.scope == "lvlm":
                tower_of(resolve(cell.model), cell.tower).grids(cell.num_visual)
        if cell.memory_cap is not None:
            with faults:
                cap_bytes(cell.memory_cap)
    faults.raise_all()


def _prepare(request: dict[str, Any]) -> None:
    """Check ``cell`` and trace one like it, smaller: what is imported on the way stays."""
    from workbench.lvlm.places import visual_unit
    from workbench.probe.predicting.predict import predict
    from workbench.vocabulary.cell import Cell

    _check({"cells": [request["cell"]]})
    cell = Cell.model_validate(request["cell"])
    predict(cell.replace(num_visual=visual_unit(cell), memory_cap=None), "cpu")


def _estimate(request: dict[str, Any]) -> list[list[float]]:
    from workbench.probe.workers.estimate import Kind, estimate
    from workbench.vocabulary.sweep import Point

    return estimate(
        [
            Kind(Point.model_validate(kind["point"]), kind["device"], kind["visual"])
            for kind in request["kinds"]
        ]
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.300}" if text else type(error).__name__


def _tail(error: BaseException) -> list[str]:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return lines[-TRACEBACK_LINES:]


def _is_cuda_fault(error: BaseException) -> bool:
    """Whether the CUDA context may be lost, so that every later call in this process fails too."""
    torch = sys.modules["torch"]
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


if __name__ == "__main__":
    main()
