"""What the card did meanwhile: power, energy, clocks, throttling, company. By NVML, off the clock.

A fact that the driver does not give is None and ``reasons`` says why; it is never 0.
"""

import os
import time
from collections.abc import Callable, Iterable
from statistics import median
from threading import Event, Thread
from types import TracebackType
from typing import Any, NamedTuple, Self

from workbench.probe.machine.environment import cuda_index
from workbench.probe.machine.nvml import Answer, Nvml
from workbench.vocabulary.metrics import METRICS, Sensor

# nvml.h, nvmlClocksEventReasons. Idle, user-set and display clocks are settings, not throttling.
POWER_CAP = "power cap"
"""How a card at full work normally runs (an H100 under matmuls): a fact, no disturbance."""
THROTTLE_REASONS = {
    0x04: POWER_CAP,
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal limit",
    0x40: "hardware thermal limit",
    0x80: "power brake",
}
_MEMORY_CLOCK, _GPU_SENSOR = 2, 0


def sensors() -> dict[str, Sensor]:
    """The sensors of all metrics by the name of the fact that each one says."""
    return {
        metric.sensor.fact or name: metric.sensor
        for name, metric in METRICS.items()
        if metric.sensor is not None
    }


class Snapshot(NamedTuple):
    """The card at one moment; ``reasons`` has a sentence for each fact that is None."""

    sensed: dict[str, float | None]
    """What the sensors of the metrics say, by the name of the fact."""
    energy_j: float | None
    """The card's total since its driver was loaded; only a difference means something."""
    memory_clock_mhz: int | None
    temperature_c: int | None
    throttle_reasons: tuple[str, ...] | None
    used_bytes: int | None
    other_processes: int | None
    ecc: bool | None
    mig: bool | None
    driver: str | None
    reasons: dict[str, str]


def _throttling(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in THROTTLE_REASONS.items() if bits & bit)


def disturbances(reasons: Iterable[str]) -> list[str]:
    """Those reasons of a lower clock that make a time another than the card's own."""
    return [reason for reason in reasons if reason != POWER_CAP]


class Telemetry:
    """Watches one card between ``before()`` and ``after()``, or within a ``with`` block.

    A thread looks every ``period_s`` seconds, since a card is idle again by the time that the work
    is over. ``uses_card``: this process holds a context on the card, so the driver must list it.
    """

    def __init__(
        self,
        device: str,
        nvml: Nvml | None = None,
        period_s: float = 0.2,
        uses_card: bool = True,
    ) -> None:
        self._nvml = nvml or Nvml()
        self._period_s = period_s
        self._uses_card = uses_card
        self._done = Event()
        self._thread: Thread | None = None
        self._first: Snapshot | None = None
        self._last: Snapshot | None = None
        self._samples: list[Snapshot] = []
        self._times: list[float] = []
        self._absent = self._nvml.reason
        self._handle: Any = None
        index = cuda_index(device)
        if index is None:
            self._absent = "a CPU has no NVML"
        elif self._absent is None:
            cards = self._nvml.visible()
            if index < len(cards):
                self._handle = cards[index]
            else:
                self._absent = f"NVML does not list {device}"

    def _ask(self, query: str, *arguments: Any) -> Answer:
        if self._absent is not None:
            return Answer(None, self._absent)
        return self._nvml.ask(query, self._handle, *arguments)

    def _event_reasons(self) -> Answer:
        answer = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if answer.value is None:  # the name in drivers before 535
            answer = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return answer

    def _others(self) -> Answer:
        answer = self._ask("nvmlDeviceGetComputeRunningProcesses")
        if answer.value is None:
            return answer
        pids = {process.pid for process in answer.value}
        if os.getpid() in pids:
            return Answer(len(pids) - 1)
        if not self._uses_card:
            return Answer(len(pids))
        if not pids:
            return Answer(
                None, "the driver does not list this process, so perhaps no other either"
            )
        # In a container the driver's process ids are the host's: one of them is this process.
        return Answer(len(pids) - 1)

    def snapshot(self) -> Snapshot:
        """Ask the driver for everything once."""
        queries: dict[str, tuple[Answer, Callable[[Any], Any]]] = {
            "energy_j": (self._ask("nvmlDeviceGetTotalEnergyConsumption"), lambda mj: mj / 1e3),
            "memory_clock_mhz": (self._ask("nvmlDeviceGetClockInfo", _MEMORY_CLOCK), int),
            "temperature_c": (self._ask("nvmlDeviceGetTemperature", _GPU_SENSOR), int),
            "throttle_reasons": (self._event_reasons(), _throttling),
            "used_bytes": (self._ask("nvmlDeviceGetMemoryInfo"), lambda info: int(info.used)),
            "other_processes": (self._others(), int),
            "ecc": (self._ask("nvmlDeviceGetEccMode"), lambda mode: bool(mode[0])),
            "mig": (self._ask("nvmlDeviceGetMigMode"), lambda mode: bool(mode[0])),
            "driver": (self._driver(), str),
        }
        facts = {
            name: None if answer.value is None else convert(answer.value)
            for name, (answer, convert) in queries.items()
        }
        reasons = {name: answer.reason for name, (answer, _) in queries.items() if answer.reason}
        sensed: dict[str, float | None] = {}
        for fact, sensor in sensors().items():
            answer = self._ask(sensor.query, *sensor.arguments)
            value = answer.value
            if value is not None and sensor.divisor != 1:
                value = value / sensor.divisor
            sensed[fact] = value
            if answer.reason:
                reasons[fact] = answer.reason
        return Snapshot(**facts, sensed=sensed, reasons=reasons)

    def _driver(self) -> Answer:
        if self._absent is not None:
            return Answer(None, self._absent)
        return self._nvml.ask("nvmlSystemGetDriverVersion")

    def before(self) -> Snapshot:
        """The state at the start; from here on the card is watched."""
        self._first, self._last, self._samples = self.snapshot(), None, []
        self._times = [time.monotonic()]
        self._done.clear()
        if self._absent is None:
            self._thread = Thread(target=self._watch, name="telemetry", daemon=True)
            self._thread.start()
        return self._first

    def _watch(self) -> None:
        while not self._done.wait(self._period_s):
            self._samples.append(self.snapshot())
            self._times.append(time.monotonic())

    def after(self) -> Snapshot:
        """The state at the end; the watch is over."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._last = self.snapshot()
        self._times.append(time.monotonic())
        return self._last

    def __enter__(self) -> Self:
        self.before()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.after()

    def summary(self) -> dict[str, Any]:
        """The watched span: energy used, median power and clocks, the rest at its worst.

        ``reasons`` says for each fact that is None why it is.
        """
        assert self._first is not None
        assert self._last is not None, "summary() comes after after()"
        samples = [self._first, *self._samples, self._last]
        # The ends are idle moments; they stand in only where the work was too short to be seen.
        busy = self._samples or samples

        def values(name: str, among: list[Snapshot]) -> list[Any]:
            return [value for one in among if (value := getattr(one, name)) is not None]

        facts: dict[str, Any] = {"energy_j": None}
        if self._first.energy_j is not None and self._last.energy_j is not None:
            facts["energy_j"] = self._last.energy_j - self._first.energy_j
        for name in sensors():
            seen_values = [value for one in busy if (value := one.sensed[name]) is not None]
            facts[name] = median(seen_values) if seen_values else None
        clocks = values("memory_clock_mhz", busy)
        facts["memory_clock_mhz"] = median(clocks) if clocks else None
        for name in ("temperature_c", "used_bytes", "other_processes"):
            facts[name] = max(values(name, samples), default=None)
        throttled = values("throttle_reasons", busy)
        facts["throttle_reasons"] = sorted({r for one in throttled for r in one}) or (
            [] if throttled else None
        )
        facts["power_cap_share"] = (
            sum(POWER_CAP in one for one in throttled) / len(throttled) if throttled else None
        )
        for name in ("ecc", "mig", "driver"):
            facts[name] = getattr(self._last, name)
        facts["num_looks"] = len(self._samples)
        facts["reasons"] = reasons = {**self._first.reasons, **self._last.reasons}
        if "throttle_reasons" in reasons:
            reasons["power_cap_share"] = reasons["throttle_reasons"]
        return facts

    def disturbed(self) -> list[tuple[float, float]]:
        """Spans of the monotonic clock in which the card was throttled or not ours alone.

        A look speaks for the time since the look before. The power cap disturbs nothing.
        """
        assert self._first is not None
        assert self._last is not None, "disturbed() comes after after()"
        looks = [self._first, *self._samples, self._last]
        busy = {id(look) for look in self._samples or looks}
        starts = [self._times[0], *self._times]
        return [
            (start, end)
            for look, start, end in zip(looks, starts, self._times, strict=False)
            if look.other_processes
            or (disturbances(look.throttle_reasons or ()) and id(look) in busy)
        ]

    def flags(self) -> list[str]:
        """The quality flags of the watched span: throttled, shared card, MIG slice."""
        facts = self.summary()
        flags = []
        throttled = disturbances(facts["throttle_reasons"] or ())
        if throttled:
            flags.append("throttled: " + ", ".join(throttled))
        if facts["other_processes"]:
            flags.append(f"shared_card: {facts['other_processes']} other processes on the card")
        if facts["mig"]:
            flags.append("mig: a slice of a card, not a card")
        return flags
