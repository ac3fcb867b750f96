"""The OOM threshold, measured: trials in fresh processes, from the predicted one outwards."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from workbench.lvlm.places import visual_unit
from workbench.probe.counting.allocator import CARD, HOST, Allocator, allocator_of
from workbench.probe.machine.allocator import check_allocator, setting_of
from workbench.probe.machine.environment import (
    device_name,
    environment,
    free_memory_bytes,
    num_threads,
    resolve_device,
)
from workbench.probe.machine.memory_limit import asked_limits, host_limit
from workbench.probe.predicting.capacity import cap_bytes
from workbench.probe.predicting.emulation import check_emulation
from workbench.probe.predicting.limit import Limit, predicted_bracket
from workbench.probe.predicting.search import MAX_FAILURES, Found, search
from workbench.probe.workers.client import Client
from workbench.vocabulary.agreement import check_states
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import DEVICES, entry_of
from workbench.vocabulary.errors import Failure, RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Record, Status
from workbench.vocabulary.sweep import Point, make_point

MOST_READY = 6
"""Workers that are made ready ahead of their trials on a card; a trial there takes seconds, and a
process several times as long to start."""
READY_BYTES = 2 * 2**30
"""Free host memory for each of them."""
FLAGS_OF_A_RUN = ("memory_cap", "memory_limit", "emulated")
"""Flags of a trial that hold for the threshold too."""


@dataclass(frozen=True)
class MeasuredLimit(Limit):
    """A threshold both of whose ends were run."""

    trials: list[dict[str, Any]] = field(default_factory=list)
    """|V|, iterations, status and seconds of an iteration of each trial, in order."""
    num_oom: int = 0
    predicted_max_visual: int | None = None


Keep = Callable[[Record], object]


def measured_limit(
    cell: Cell,
    device: str,
    protocol: Protocol,
    keep: Keep = lambda record: None,
    known: Mapping[int, tuple[Status, int]] | None = None,
) -> MeasuredLimit:
    """The threshold of a cell, whose own |V| is not read, on ``auto``, ``cpu`` or ``cuda:N``.

    ``keep`` gets the record of every trial. ``known`` holds trials that need not be run again:
    |V| -> status and iterations. Raises RequestError for what cannot be asked, Unsupported where
    the kernel cannot serve the cell, and Failure where a trial ended as neither ok nor oom.
    """
    place = resolve_device(device)
    point = make_point(
        cell=cell, source="measured", device=place, protocol=protocol.model_dump(by_alias=True)
    )
    check_allocator(cell, place)
    capacity = _capacity(point, place)
    unit = visual_unit(cell)
    lowest = 0 if cell.num_text else unit
    check_states(cell)
    if protocol.emulate is not None:
        check_emulation(cell, protocol.emulate)
    elif cell.under_deepspeed:
        raise RequestError(
            f"world_size {cell.world_size}, zero {cell.zero}: a trial runs without deepspeed; "
            "--emulate a rank, or leave --measure out"
        )
    predicted = predicted_bracket(cell, capacity, _allocator(place), protocol.emulate)
    guess = predicted.max_visual
    with Fresh(cell, num_ready(place)) as fresh:
        trials = _Trials(point, fresh, keep, known or {})
        bracket = search(trials.fits, lowest if guess is None else guess, unit, lowest)
    return MeasuredLimit(
        cell=cell,
        source="measured",
        device=device_name(place),
        max_visual=bracket.passes,
        fails_at=bracket.fails,
        capacity_bytes=capacity,
        stopped_by=predicted.stopped_by,
        trials=trials.rows,
        num_oom=bracket.failures,
        predicted_max_visual=guess,
        flags=[*trials.flags.values(), *_flags(bracket, unit)],
    )


def _allocator(place: str) -> Allocator:
    """What hands out memory there; a card that no entry describes has no workspace."""
    if place == "cpu":
        return HOST
    try:
        return allocator_of(DEVICES[entry_of(device_name(place))])
    except RequestError:
        return CARD


def _capacity(point: Point, place: str) -> int:
    """Bytes that the cell may have: the cap, or what the card gives a process."""
    cell = point.cell
    if place == "cpu":
        limit = min(asked_limits(point), default=None)
        if limit is None:
            raise RequestError("device 'cpu': has no fixed capacity; give --memory-cap BYTES")
        there = host_limit(point, place)
        assert there is not None, "a measured cell on the CPU has a limit"
        if there < limit:
            raise RequestError(
                f"memory_cap {limit:,}: a threshold needs all of it, and {there:,} bytes (90 % of "
                "what is free) are there; give less"
            )
        return limit
    if cell.memory_cap is not None:
        return cap_bytes(cell.memory_cap)
    try:
        capacity = DEVICES[entry_of(device_name(place))].capacity_bytes
    except RequestError:
        capacity = environment(place).gpu_memory_bytes
    if capacity is None:
        raise RequestError(f"device {place!r}: its capacity is unknown; give --memory-cap BYTES")
    return capacity


def num_ready(place: str) -> int:
    """How many workers wait for a trial: as many as the cores and the memory of the host allow.

    One on the CPU, where those that start take the cores of the trial that runs.
    """
    if place == "cpu":
        return 1
    return max(1, min(MOST_READY, num_threads() - 1, free_memory_bytes() // READY_BYTES))


def trials_in(records: Iterable[Record], cell: Cell) -> dict[int, tuple[Status, int]]:
    """What stored trials say of a threshold's cell, whatever its |V|: status and iterations."""
    whole = cell.replace(num_visual=1).key
    return {
        record.cell.num_visual: (record.status, int(record.details.get("iterations", 0)))
        for record in records
        if record.cell.replace(num_visual=1).key == whole
    }


class Fresh:
    """Workers that have run nothing yet, some of them ready while the last one works."""

    def __init__(self, cell: Cell, ahead: int) -> None:
        self.cell = cell
        self._pool = ThreadPoolExecutor(ahead)
        self._ready: deque[Future[Client]] = deque()
        for _ in range(ahead):
            self._ready.append(self._pool.submit(self._start))

    def _start(self) -> Client:
        client = Client(allocator=setting_of(self.cell))
        try:
            client.prepare(self.cell)  # Libraries are imported; the device is not touched.
        except BaseException:
            client.close()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for future in self._ready:
            if not future.cancelled() and future.exception() is None:
                future.result().close()

    def run(self, point: Point) -> Record:
        """The record of a point, in a process of its own."""
        with self._ready.popleft().result() as client:
            self._ready.append(self._pool.submit(self._start))
            return client.run(point)


class _Trials:
    """Runs one |V| after another, each in a process of its own."""

    def __init__(
        self, point: Point, fresh: Fresh, keep: Keep, known: Mapping[int, tuple[Status, int]]
    ) -> None:
        self.point, self.fresh, self.keep, self.known = point, fresh, keep, dict(known)
        self.rows: list[dict[str, Any]] = []
        self.flags: dict[str, str] = {}

    def fits(self, visual: int, iterations: int) -> bool:
        """Whether ``iterations`` of that |V| ran; raises as ``measured_limit`` does."""
        status, ran = self.known.get(visual, (None, 0))
        if status is Status.OOM or (status is Status.OK and ran >= iterations):
            self._note(visual, ran, status, None)
            return status is Status.OK
        record = self._run(visual, iterations)
        self.keep(record)
        self._note(visual, iterations, record.status, record.metrics.get("time_s"))
        if record.status is Status.UNSUPPORTED:
            raise Unsupported(record.error)
        if record.status not in (Status.OK, Status.OOM):
            raise Failure(
                f"limit: the trial at |V| = {visual:,} ended as {record.status} ({record.error}); "
                "that is no out-of-memory, so the threshold stays unknown"
            )
        for flag in record.flags:
            name = flag.split(":")[0]
            if name in FLAGS_OF_A_RUN:
                self.flags[name] = flag  # The last trial's: ballast depends on |V|.
        return record.status is Status.OK

    def _run(self, visual: int, iterations: int) -> Record:
        protocol = self.point.protocol.model_copy(update={"iterations": iterations})
        cell = self.point.cell.replace(num_visual=visual)
        return self.fresh.run(self.point.model_copy(update={"cell": cell, "protocol": protocol}))

    def _note(self, visual: int, iterations: int, status: Status, seconds: Any) -> None:
        self.rows.append(
            {
                "num_visual": visual,
                "iterations": iterations,
                "status": str(status),
                "time_s": seconds,
            }
        )


def _flags(bracket: Found, unit: int) -> list[str]:
    flags = ["stopped_by: the kind of memory that takes most there by the prediction"]
    if not bracket.closed(unit) and bracket.fails is not None:
        flags.append(
            f"wide: {bracket.failures} trials failed, and no more than {MAX_FAILURES} may"
        )
    return flags
