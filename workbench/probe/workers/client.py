"""The coordinator's end of a worker: points go in, records come out, whatever it meets."""

import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Self

from workbench.child import END_TIMEOUT_S, Child, Ended
from workbench.probe.machine.allocator import DEFAULT, setting_of, variables_of
from workbench.probe.machine.environment import device_name, resolve_device
from workbench.probe.machine.memory_limit import SHARE_OF_FREE, asked_limits, host_limit
from workbench.probe.workers.seat import WHOLE_MACHINE, Seat
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Failure, RequestError
from workbench.vocabulary.record import Ceiling, Record, Status
from workbench.vocabulary.sweep import Point

START_TIMEOUT_S = 300.0
"""Until a worker is ready: torch is imported, perhaps over a cold network disk."""
_OWN_CRASH = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_ALLOCATION = re.compile(
    r"bad_alloc|can't allocate memory|Cannot allocate memory|Thread creation failed"
)


class WorkerError(Failure):
    """The worker cannot be started, or failed at something that is not a cell."""


class WorkerKilled(WorkerError):
    """The worker was ended from outside while it started."""


class Worker(Child):
    """The process that runs cells for one ``Client``. Its guard ends whatever it started.

    Raises WorkerError where it cannot be started, WorkerKilled where something ends it meanwhile.
    """

    def __init__(self, seat: Seat, stop: int, allocator: str = DEFAULT) -> None:
        super().__init__(
            (sys.executable, "-P", "-m", "workbench.probe.workers.worker"),
            {**seat.variables, **variables_of(allocator)},
            name="worker",
            grace_s=END_TIMEOUT_S,
            stop=stop,
        )
        try:
            self.pid = int(self.start(START_TIMEOUT_S)["ready"])
        except (Ended, TimeoutError) as error:
            if isinstance(error, Ended):
                status, reason = cause(error.code, self.stderr, None)
                if status is Status.KILLED:
                    raise WorkerKilled(f"{reason} while it started") from None
            last = self.last_line or error
            raise WorkerError(f"the worker process cannot start: {last}") from None


class Client:
    """Runs points in a worker, re-used while cells succeed and replaced after any failure.

    ``seat`` is what the worker gets of the machine, ``allocator`` the setting of CUDA's allocator
    that the first one starts with. One thread at a time calls a client; any other
    may ``interrupt`` it, which ends it for good.
    """

    trace: Path | None = None
    """A folder for a profiler trace of each measured cell."""
    snapshot: Path | None = None
    """A folder for the CUDA allocator's history of one iteration, for memory_viz."""
    ceilings: Mapping[str, Ceiling] = MappingProxyType({})
    """What the device was found to reach, by data type."""

    def __init__(self, seat: Seat = WHOLE_MACHINE, allocator: str = DEFAULT) -> None:
        self.seat = seat
        self._worker: Worker | None = None
        self._allocator = allocator
        self._ends: tuple[int, ...] = ()
        self._ends = self._stop, self._stopping = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        for end in self._ends:
            os.close(end)

    def interrupt(self) -> None:
        """End the worker and let the thread that waits for it raise Interrupted."""
        os.write(self._stopping, b"!")

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    @property
    def worker(self) -> Worker:
        """The warm worker, or a new one, which is tried twice where it is killed as it starts."""
        if self._worker is None:
            try:
                self._worker = Worker(self.seat, self._stop, self._allocator)
            except WorkerKilled:
                self._worker = Worker(self.seat, self._stop, self._allocator)
        return self._worker

    def _suit(self, point: Point, device: str) -> None:
        """Replace a worker whose CUDA allocator was started with another setting."""
        if point.source != "measured" or device == "cpu":
            return
        setting = setting_of(point.cell)
        if setting != self._allocator:
            self.close()
            self._allocator = setting

    def check(self, cells: list[Cell]) -> None:
        """Raise RequestError for all that is wrong with the cells; nothing is built or run."""
        self._task("check", cells=[cell.document() for cell in cells])

    def prepare(self, cell: Cell) -> None:
        """Let the worker import what a cell of that kind needs; no device is touched.

        Raises as ``check`` does.
        """
        self._task("prepare", cell=cell.document())

    def estimate(self, points: list[tuple[Point, str]]) -> list[float]:
        """Seconds that each (point, resolved device) will take here: a forecast."""
        groups: dict[Any, list[int]] = {}
        for index, (point, device) in enumerate(points):
            same = (point.source, device, point.protocol, point.calibration, point.cell.kind)
            groups.setdefault(same, []).append(index)
        questions = []
        for members in groups.values():
            point, device = points[members[0]]
            sizes = [points[index][0].cell.num_visual for index in members]
            questions.append({"point": _document(point), "device": device, "visual": sizes})
        seconds_of = [0.0] * len(points)
        for members, answers in zip(
            groups.values(), self._task("estimate", kinds=questions), strict=True
        ):
            for index, seconds in zip(members, answers, strict=True):
                seconds_of[index] = float(seconds)
        return seconds_of

    def ceiling(self, dtype: str, device: str) -> Ceiling:
        """What the device reaches in a data type, measured now."""
        return Ceiling(*self._task("ceiling", dtype=dtype, device=device))

    def _task(self, name: str, **request: Any) -> Any:
        try:
            answer = self.worker.ask({"do": name, **request}, START_TIMEOUT_S)
        except (Ended, TimeoutError) as error:
            self.close()
            raise WorkerError(f"{name}: {error}") from None
        if "request_error" in answer:
            raise RequestError(*answer["request_error"])
        if "fault" in answer:
            raise WorkerError(f"{name}: {answer['fault']}")
        return answer["answer"]

    def run(self, point: Point) -> Record:
        """The record of a point, whatever happens to the worker; RequestError for a wrong request.

        A cell that met a CUDA fault gets one more try, since an earlier cell may have caused it.
        """
        record = self._run_once(point)
        if record.details.get("cuda_fault"):
            record = self._run_once(point)
            flag = "retried: the first try ended in a CUDA fault"
            record = record.model_copy(update={"flags": [*record.flags, flag]})
        return record

    def _run_once(self, point: Point) -> Record:
        device = resolve_device(point.device) if point.source == "measured" else point.device
        limit = host_limit(point, device, self.seat.share)
        self._suit(point, device)
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()

        def failed(status: Status, error: str, stderr: list[str]) -> Record:
            measured = point.source == "measured"
            return Record(
                cell=point.cell,
                source=point.source,
                device=device_name(device) if measured else device,
                status=status,
                error=error,
                flags=[f"{status}: {error}"],
                details={"stderr": stderr[-20:]} if stderr else {},
                environment=self.seat.environment(device if measured else "cpu"),
                started_at=started,
                duration_s=time.monotonic() - clock,
            )

        try:
            worker = self.worker
        except WorkerKilled as error:
            return failed(Status.KILLED, f"{error}, twice", [])
        # The ranks' own folder is ours: a worker that is ended clears nothing away.
        together = point.through_launcher
        scratch = TemporaryDirectory(prefix="workbench-ranks-") if together else None
        try:
            question = {
                "do": "run",
                "point": _document(point),
                "device": device,
                "limit": limit,
                "trace": None if self.trace is None else str(self.trace),
                "snapshot": None if self.snapshot is None else str(self.snapshot),
                "ceilings": dict(self.ceilings),
                "folder": None if scratch is None else scratch.name,
            }
            answer = worker.ask(question, point.protocol.timeout_s)
        except TimeoutError:
            self.close()
            silent = f"no answer within {point.protocol.timeout_s:g} s"
            record = failed(Status.TIMEOUT, silent, worker.stderr)
        except Ended as end:
            self.close()
            record = failed(*cause(end.code, worker.stderr, limit), worker.stderr)
        except BaseException:
            self.close()
            raise
        else:
            if "request_error" in answer:
                raise RequestError(*answer["request_error"])
            if "fault" in answer:
                raise WorkerError(answer["fault"])
            record = Record.from_document(answer["answer"])
        finally:
            if scratch is not None:
                scratch.cleanup()
        usable = record.status in (Status.OK, Status.UNSUPPORTED)
        if record.source == "measured" and (not usable or record.details.get("capture_failed")):
            self.close()
        return _with_limit(record, point, limit, self.seat.share)


def _document(point: Point) -> dict[str, Any]:
    return point.model_dump(mode="json", by_alias=True)


def cause(code: int, stderr: list[str], limit: int | None) -> tuple[Status, str]:
    """What the end of a worker means for its cell. A kill from outside is never an OOM."""
    if code < 0:
        name = signal.Signals(-code).name
        if -code not in _OWN_CRASH:
            return Status.KILLED, f"the worker was ended from outside by {name}"
        reason = f"the worker crashed with {name}"
    else:
        reason = f"the worker left with exit status {code}"
    if limit is not None and any(_ALLOCATION.search(line) for line in stderr):
        return Status.OOM, f"{reason} when memory was refused"
    return Status.ERROR, f"{reason}: {stderr[-1]}" if stderr else reason


def _with_limit(record: Record, point: Point, limit: int | None, share: float) -> Record:
    """Keep the ceiling of host memory; flag it where it was met or is not the one asked for."""
    if limit is None:
        return record
    smallest = min(asked_limits(point), default=None)
    flags = list(record.flags)
    if smallest is not None and smallest > limit:
        part = f"{SHARE_OF_FREE * share / point.ranks:.0%} of what is free"
        flags.append(f"memory_limit: {limit:,} bytes, {part}, not {smallest:,}")
    elif record.status is Status.OOM:
        who = "the worker" if point.ranks == 1 else "each rank"
        flags.append(f"memory_limit: {who} could allocate {limit:,} bytes of host memory")
    details = {**record.details, "memory_limit_bytes": limit}
    return record.model_copy(update={"flags": flags, "details": details})
