"""What an allocator did in one iteration, as a timeline of blocks: the CPU's and CUDA's."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, cuda
from torch.profiler import ProfilerActivity, profile, record_function

from workbench.probe.counting.allocator import MIN_BLOCK
from workbench.probe.counting.tracker import Block, Timeline

MARK = "phase ended: "
ALLOCATED, FREED = "alloc", "free_completed"
"""torch's words for them in the history of the CUDA allocator."""


class Event(NamedTuple):
    """One change of one allocation: ``size`` bytes more, or fewer where it is below 0."""

    address: int
    size: int


class Recorder(Protocol):
    """Enter it around one iteration and mark the end of each phase."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def mark(self, phase: str) -> None:
        """``forward``, ``backward`` or ``optimizer`` is over."""

    def timeline(self, kept: Mapping[str, Iterable[Tensor]]) -> Timeline:
        """The blocks of the iteration; those of ``kept`` tensors, by kind, live at its end."""

    def phases(self, timeline: Timeline, before: int) -> dict[str, dict[str, int]]:
        """Allocated bytes at the start, the peak and the end of each phase."""

    def start_bytes(self) -> int:
        """What was allocated before the iteration, 0 where the allocator keeps no count."""

    def peak_bytes(self) -> int | None:
        """What the allocator says itself, None where it keeps no count."""

    def reserved_bytes(self) -> int | None:
        """The peak of what it held, in use or not."""

    def retries(self) -> int:
        """Times that it had to free its cache."""


class CpuHistory:
    """The CPU allocator's events under torch's profiler."""

    def __init__(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._ends: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._profile.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._profile.__exit__(None, None, None)

    def mark(self, phase: str) -> None:
        with record_function(MARK + phase):
            pass

    def timeline(self, kept: Mapping[str, Iterable[Tensor]]) -> Timeline:
        assert self._profile.profiler is not None, "the profiler ran"
        results: Any = self._profile.profiler.kineto_results
        steps: list[tuple[int, Event | str]] = []
        nodes = list(results.experimental_event_tree())
        while nodes:
            node = nodes.pop()
            nodes += node.children
            if node.name == "[memory]":
                change = node.extra_fields
                steps.append((node.start_time_ns, Event(change.ptr, change.alloc_size)))
            elif node.name.startswith(MARK):
                steps.append((node.start_time_ns, node.name.removeprefix(MARK)))
        events: list[Event] = []
        for _, what in sorted(steps, key=lambda each: each[0]):
            if isinstance(what, Event):
                events.append(what)
            else:
                self._ends[what] = len(events)
        return timeline_of(events, self._ends, kept)

    def phases(self, timeline: Timeline, before: int) -> dict[str, dict[str, int]]:
        return split(timeline, self._ends, before)

    def start_bytes(self) -> int:
        return 0

    def peak_bytes(self) -> int | None:
        return None

    def reserved_bytes(self) -> int | None:
        return None

    def retries(self) -> int:
        return 0


class CudaHistory:
    """The caching allocator's own counts, and its history for what they do not tell apart."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._index = cuda.current_device() if device.index is None else device.index
        self._ends: dict[str, int] = {}
        self._phases: dict[str, dict[str, int]] = {}
        self._entries: list[dict[str, Any]] = []
        self._start = self._first = self._retries = 0
        self._peaks: list[int] = []

    def __enter__(self) -> Self:
        cuda.synchronize(self._device)
        self._retries = self._stat("num_alloc_retries")
        cuda.memory._record_memory_history("all", context=None, stacks="python")
        cuda.reset_peak_memory_stats(self._device)
        self._start = self._first = cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        cuda.synchronize(self._device)
        self._entries = self._trace()
        cuda.memory._record_memory_history(None)

    def mark(self, phase: str) -> None:
        cuda.synchronize(self._device)
        end = cuda.memory_allocated(self._device)
        self._peaks.append(cuda.max_memory_allocated(self._device))
        self._phases[phase] = {"start": self._start, "peak": self._peaks[-1], "end": end}
        self._ends[phase] = len(self._trace())
        self._start = end
        cuda.reset_peak_memory_stats(self._device)

    def _trace(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = cuda.memory._snapshot()["device_traces"][self._index]
        return events

    def _stat(self, name: str) -> int:
        return int(cuda.memory_stats(self._device).get(name, 0))

    def timeline(self, kept: Mapping[str, Iterable[Tensor]]) -> Timeline:
        events, ends = cuda_events(self._entries, self._ends)
        return timeline_of(events, ends, kept)

    def phases(self, timeline: Timeline, before: int) -> dict[str, dict[str, int]]:
        return self._phases

    def start_bytes(self) -> int:
        return self._first

    def peak_bytes(self) -> int | None:
        return max(self._peaks)

    def reserved_bytes(self) -> int | None:
        return self._stat("reserved_bytes.all.peak")

    def retries(self) -> int:
        return self._stat("num_alloc_retries") - self._retries


def cuda_events(
    entries: list[dict[str, Any]], ends: Mapping[str, int]
) -> tuple[list[Event], dict[str, int]]:
    """The history of torch's CUDA allocator as events, sizes as its blocks have them.

    ``ends`` counts entries, the answer's events.
    """
    events: list[Event] = []
    upto = [0]
    for entry in entries:
        size = -(-int(entry["size"]) // MIN_BLOCK) * MIN_BLOCK
        if entry["action"] == ALLOCATED:
            events.append(Event(int(entry["addr"]), size))
        elif entry["action"] == FREED:
            events.append(Event(int(entry["addr"]), -size))
        upto.append(len(events))
    return events, {phase: upto[end] for phase, end in ends.items()}


def timeline_of(
    events: list[Event], ends: Mapping[str, int], kept: Mapping[str, Iterable[Tensor]]
) -> Timeline:
    """Blocks from allocator events; a release of what was there before counts for nothing.

    Only a train pass's forward leaves activations, so only there its end is one.
    """
    blocks: list[Block] = []
    live: dict[int, Block] = {}
    for tick, event in enumerate(events, start=1):
        if event.size > 0:
            live[event.address] = Block(event.size, tick)
            blocks.append(live[event.address])
        elif event.address in live:
            live.pop(event.address).died = tick
    for kind, tensors in kept.items():
        for tensor in tensors:
            block = live.get(tensor.untyped_storage().data_ptr())
            if block is not None:
                block.kind = kind
    return Timeline(blocks, [], ends["forward"] if "backward" in ends else -1)


def split(timeline: Timeline, ends: Mapping[str, int], before: int) -> dict[str, dict[str, int]]:
    """Bytes at the start, the peak and the end of each phase, with what was there before."""
    phases, start = {}, 0
    for phase, end in ends.items():
        levels = timeline.levels(start, end)
        phases[phase] = {
            "start": before + levels[0],
            "peak": before + max(levels),
            "end": before + levels[-1],
        }
        start = end
    return phases
