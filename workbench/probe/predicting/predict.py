"""A cell without its device: FLOPs, memory and roofline time from one pass over fake tensors."""

import time
from datetime import UTC, datetime
from typing import Any

from workbench.probe.counting.allocator import allocator_of
from workbench.probe.machine.environment import environment
from workbench.probe.predicting.contribution import Contributions
from workbench.probe.predicting.contributors import CONTRIBUTORS
from workbench.probe.predicting.emulation import check_emulation
from workbench.probe.predicting.footprint import check_allocator
from workbench.probe.predicting.subject import Subject
from workbench.probe.predicting.traces import trace_of
from workbench.vocabulary.agreement import check_states
from workbench.vocabulary.calibration import calibration_for, file_asked
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import Device, device
from workbench.vocabulary.errors import Faults, Unsupported
from workbench.vocabulary.fields import Layers
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.record import Record, Status


def predict(
    cell: Cell,
    device_name: str,
    calibration: str | None = None,
    pictures: Pictures | None = None,
    emulate: Layers | None = None,
) -> Record:
    """Predict one cell on a named device; ``calibration`` is a file, or ``none``.

    With ``emulate`` its memory is that of one process which emulates a rank of the cell, so many
    of whose layers run. Without a calibration, the one that comes with the workbench is used, if
    there is one.

    A cell beyond the device's capacity has status ``oom`` and keeps its metrics. Raises
    RequestError for unknown names; a kernel that cannot serve the family gives status
    ``unsupported``.
    """
    target = device(device_name)
    check(cell, target, emulate)
    rates = calibration_for(target.name, calibration)
    clock, record = time.monotonic(), _begun(cell, target)
    try:
        traced = trace_of(cell, allocator_of(target), pictures)
    except Unsupported as error:
        flags = [f"unsupported: {error}"]
        record |= {"status": Status.UNSUPPORTED, "error": str(error), "flags": flags}
        return Record(**record, duration_s=time.monotonic() - clock)
    own = None if calibration is None else file_asked(calibration)
    subject = Subject(cell, target, traced, rates, own, pictures, emulate)
    total = Contributions()
    for contribute in CONTRIBUTORS:
        total.add(contribute(subject, total))
    fits = subject.memory.fits
    return Record(
        **record,
        status=Status.OK if fits else Status.OOM,
        error=None if fits else subject.memory.why_not(),
        metrics=total.metrics,
        flags=total.flags,
        details=total.details,
        duration_s=time.monotonic() - clock,
    )


def check(cell: Cell, target: Device, emulate: Layers | None) -> None:
    """Raise RequestError for a cell that the device cannot be asked for, or not so emulated."""
    faults = Faults()
    with faults:
        check_states(cell)
    with faults:
        check_allocator(cell, target)
    with faults:
        if emulate is not None:
            check_emulation(cell, emulate)
    faults.raise_all()


def _begun(cell: Cell, target: Device) -> dict[str, Any]:
    """The fields that a predicted record has before anything is traced."""
    return {
        "cell": cell,
        "source": "predicted",
        "device": target.name,
        "environment": environment("cpu"),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
