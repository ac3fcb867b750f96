"""Seconds that offloaded activations need to cross to the host and back."""

from dataclasses import dataclass
from typing import Any

from workbench.lvlm.offload import FROM_HOST, TO_HOST
from workbench.probe.counting.trace import Trace
from workbench.vocabulary.devices import Device


@dataclass(frozen=True)
class Transfer:
    """The host link's share of one iteration."""

    bytes_out: int
    bytes_in: int
    seconds: float | None
    """At the link's full rate; None where no source states one."""

    def overlapped_with(self, computing: float | None) -> float | None:
        """Seconds of the iteration: the copies run beside the computing, not before it.

        Out in forward and in in backward, so their times add up, whatever the link's directions.
        """
        return computing if computing is None else max(computing, self.seconds or 0.0)

    def document(self) -> dict[str, Any]:
        """For the record's details."""
        return {"bytes_out": self.bytes_out, "bytes_in": self.bytes_in, "time_s": self.seconds}


def transfer(traced: Trace, target: Device) -> tuple[Transfer | None, list[str]]:
    """What ``--offload`` moves, and the flag where its time is unknown; None without it."""
    if traced.offload_bytes is None:
        return None, []
    out, back = (
        sum(op.bytes * n for op, n in traced.operators.items() if op.name == direction)
        for direction in (TO_HOST, FROM_HOST)
    )
    rate = target.host_bandwidth_bytes_per_s
    if rate is None:
        reason = target.sources["host_bandwidth_bytes_per_s"]
        return Transfer(out, back, None), [f"offload: the copies take no time in time_s: {reason}"]
    return Transfer(out, back, (out + back) / rate), []
