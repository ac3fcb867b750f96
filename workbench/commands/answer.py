"""The line that answers, which ``predict``, ``measure`` and ``limit`` print first."""

import re
from typing import TYPE_CHECKING

from workbench.vocabulary.units import plural, quantity

if TYPE_CHECKING:
    from workbench.vocabulary.record import Record

KINDS = {
    "working": "temporary tensors",
    "inputs": "the inputs",
    "weights": "weights",
    "activations": "activations kept for the backward",
    "logits": "logits",
    "gradients": "gradients",
    "optimizer": "optimizer states",
}
"""Kinds of memory in the words of who asks what stopped a cell."""
_HELD_OUT = re.compile(r"held-out error of ([^:]+): ([\d.]+%) at the median, ([\d.]+%) at worst")


def answer(record: "Record") -> str:
    """'fits: 41.9 GiB of 78.6 GiB; 1.03 s an iteration, measured error 1.6% at the median'."""
    peak = record.metrics.get("peak_bytes")
    capacity = record.details.get("capacity_bytes")
    seconds = record.metrics.get("time_s")
    room = f" of {quantity(capacity, 'B')}" if isinstance(capacity, int) else ""
    words = {"ok": "ran" if record.source == "measured" else "fits", "oom": "does not fit"}
    status = words.get(record.status.value)
    if status is None:
        return f"{record.status.value}: {(record.error or 'no reason is known').splitlines()[0]}"
    parts = []
    if peak is not None:
        needs = "needs " if record.status.value == "oom" else ""
        parts.append(f"{needs}{quantity(peak, 'B')}{room}")
    if seconds is not None and record.status.value == "ok":
        parts.append(seconds_words(record, float(seconds)))
    return f"{status}: {'; '.join(parts)}" if parts else status


def seconds_words(record: "Record", seconds: float) -> str:
    """The seconds with how sure they are: the error of such cells, or the marks of the record."""
    words = f"{quantity(seconds, 's')} an iteration"
    if record.source == "measured":
        from workbench.vocabulary.record import FLAGS_OF_ALL, FLAGS_OF_TIME

        marks = [
            word
            for name, word in {**FLAGS_OF_ALL, **FLAGS_OF_TIME}.items()
            if any(flag.partition(":")[0] == name for flag in record.flags)
        ]
        marks += [
            plural(len(samples), "sample")
            for samples in [record.samples.get("time_s", [])]
            if samples
        ]
        return f"{words} ({', '.join(marks)})" if marks else words
    for flag in record.flags:
        if flag.startswith("beyond_calibration: "):
            return f"{words}, extrapolated: {flag.partition(': ')[2]}"
    for flag in record.flags:
        if match := _HELD_OUT.search(flag):
            kind, median, worst = match.groups()
            return f"{words}, measured error of {kind}: {median} at the median, {worst} at worst"
    if any(flag.startswith("uncalibrated") for flag in record.flags):
        return f"at least {words}: a lower bound, nothing was measured"
    return words


def kind_words(kind: str) -> str:
    """A kind of memory in plain words."""
    return KINDS.get(kind, kind)
