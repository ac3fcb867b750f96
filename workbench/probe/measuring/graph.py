"""An iteration replayed as a CUDA graph: what the card takes where no host has to feed it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import cuda

from workbench.lvlm.workload import Workload
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol

UNDER_S = 0.020
"""Iterations of forward and decode passes under this are replayed unasked."""
WARM_UPS = 3
"""Iterations on the stream that captures, before it does: torch's own advice."""
MIN_REPLAYS, MAX_REPLAYS, MIN_TOTAL_S = 10, 200, 0.2
METRIC = "device_time_s"


@dataclass
class Replay:
    """What the replays took, or why there are none."""

    samples: list[float] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    failed: bool = False
    """Whether a capture failed, after which the process's allocator is not to be relied on."""

    @property
    def metrics(self) -> dict[str, int | float | None]:
        """The record's metric: the median seconds of a replay."""
        return {METRIC: median(self.samples) if self.samples else None}

    def details(self) -> dict[str, Any]:
        """The record's details: ``capture_failed`` asks for another worker."""
        return {"capture_failed": True} if self.failed else {}


def check_graph(protocol: Protocol, place: str) -> None:
    """Raise RequestError where a graph is asked for and nothing could capture one."""
    if protocol.graph and place == "cpu":
        raise RequestError("graph: replays a CUDA graph, and a CPU has none; --device cuda")


def wants_graph(cell: Cell, protocol: Protocol, typical_s: float) -> bool:
    """Whether a measured cell on a card is replayed: as asked, else the short ones."""
    if protocol.graph is not None:
        return protocol.graph
    return cell.pass_ != "train" and typical_s < UNDER_S


def replay(workload: Workload) -> Replay:
    """Seconds of replays of one captured iteration, by CUDA events.

    A capture that fails is a flag with torch's reason. Nothing may run on the card after it in
    this process: torch's allocator may still take the capture for open.
    """
    device = workload.context.device
    try:
        graph = _capture(workload)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        return Replay(flags=[f"{METRIC}: no CUDA graph was captured: {reason}"], failed=True)
    try:
        return Replay(repeat(lambda: _seconds(graph, device)))
    finally:
        graph.reset()


def repeat(run: Callable[[], float]) -> list[float]:
    """Samples of ``run`` until there are enough, for long enough."""
    run()  # The first replay uploads the graph.
    samples: list[float] = []
    while len(samples) < MAX_REPLAYS and (
        len(samples) < MIN_REPLAYS or sum(samples) < MIN_TOTAL_S
    ):
        samples.append(run())
    return samples


def _capture(workload: Workload) -> cuda.CUDAGraph:
    device = workload.context.device
    stream = cuda.Stream(device)
    stream.wait_stream(cuda.current_stream(device))
    with cuda.stream(stream):
        for _ in range(WARM_UPS):
            workload.step()
    cuda.current_stream(device).wait_stream(stream)
    workload.clear()
    graph = cuda.CUDAGraph()
    with cuda.graph(graph, stream=stream):
        workload.step()
    return graph


def _seconds(graph: cuda.CUDAGraph, device: torch.device) -> float:
    begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    begin.record()
    graph.replay()
    end.record()
    cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1e3
