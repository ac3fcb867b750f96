"""How long points will take on this machine: a forecast for a progress bar, never a result."""

import math
import time
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from workbench.lvlm.build import build
from workbench.lvlm.context import DTYPES
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import resolve
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.places import places_of
from workbench.lvlm.sharing import own_layout
from workbench.probe.machine.memory_limit import asked_limits
from workbench.probe.measuring.measure import SLOW_S
from workbench.probe.predicting.predict import predict
from workbench.probe.predicting.traces import forget
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.sweep import Point

Floats = np.ndarray[Any, np.dtype[np.float64]]
META = torch.device("meta")
RATE_SECONDS = 0.3
TRACE_BUDGET = 60
"""Traces of a layer that a forecast may cost, about two seconds; beyond it, closed forms."""
_TRACE_COST = {"layer": 1, "decoder": 8, "lvlm": 16}


@dataclass(frozen=True)
class Kind:
    """Points that differ in |V| alone.

    ``device`` is what theirs resolves to: ``cpu``, ``cuda:N``, or a device entry. Measured on an
    entry they are for another machine.
    """

    point: Point
    device: str
    visual: list[int]

    @property
    def model(self) -> tuple[str, str, int | None, str | None]:
        """What decides which weights there are."""
        cell = self.point.cell
        return cell.model, cell.scope, cell.layer, cell.tower

    def chosen(self) -> list[int]:
        """The smallest |V|, the largest and one between; one will do for predicted points."""
        sizes = sorted(set(self.visual))
        picked = {0, len(sizes) // 2, len(sizes) - 1} if self.is_measured else {0}
        return [sizes[index] for index in sorted(picked)]

    @property
    def is_measured(self) -> bool:
        """Whether they are run, not predicted."""
        return self.point.source == "measured"


def estimate(kinds: list[Kind]) -> list[list[float]]:
    """Seconds for each |V| of each kind: FLOPs over the rate of a plain matmul of this machine.

    The FLOPs are a quadratic of |V|, from predictions of three points or, where a sweep has very
    many kinds, from closed forms. A prediction takes what predicting its like just took, a cell
    that will run out of memory half an iteration (which the closed forms do not foresee), and what
    a kernel cannot serve next to nothing.
    """
    for kind in kinds[:1]:  # what is imported on the way is not the cells' time
        predict(kind.point.cell, "cpu" if kind.is_measured else kind.device)
    cost = sum(_TRACE_COST[kind.point.cell.scope] * len(kind.chosen()) for kind in kinds)
    forecasts = _traced(kinds) if cost <= TRACE_BUDGET else _closed(kinds)
    return [_seconds(kind, forecast) for kind, forecast in zip(kinds, forecasts, strict=True)]


@dataclass(frozen=True)
class Forecast:
    """What the points of one kind cost: (|V|, FLOPs, peak bytes) at up to three |V|."""

    known: list[tuple[int, float, float]]
    seconds: float
    """To predict one of them."""

    def at(self, num_visual: Floats) -> tuple[Floats, Floats]:
        """FLOPs and peak bytes at each |V| by the polynomial through what is known."""
        flops, peak = np.zeros_like(num_visual), np.zeros_like(num_visual)
        for i, (here, known_flops, known_peak) in enumerate(self.known):
            weight = np.ones_like(num_visual)
            for j, (other, _, _) in enumerate(self.known):
                if i != j:
                    weight *= (num_visual - other) / (here - other)
            flops, peak = flops + weight * known_flops, peak + weight * known_peak
        return flops, peak


def _traced(kinds: list[Kind]) -> "list[Forecast]":
    forecasts = []
    for kind in kinds:
        forget()
        points, start, sizes = [], time.perf_counter(), kind.chosen()
        for size in sizes:
            cell = kind.point.cell.replace(num_visual=size)
            metrics = predict(cell, "cpu" if kind.is_measured else kind.device).metrics
            flops, peak = metrics.get("flops"), metrics.get("peak_bytes")
            if flops is not None and peak is not None:
                points.append((size, float(flops), float(peak)))
        forecasts.append(Forecast(points, (time.perf_counter() - start) / len(sizes)))
    return forecasts


def _closed(kinds: list[Kind]) -> "list[Forecast]":
    """By each system's closed form, over weights that are built once for all kinds of a model."""
    models: dict[tuple[str, str, int | None, str | None], _Model] = {}
    seconds: dict[tuple[str, str], float] = {}
    forecasts = []
    for kind in kinds:
        cell = kind.point.cell
        like = cell.scope, cell.pass_
        if like not in seconds:
            forget()
            start = time.perf_counter()
            predict(cell, "cpu" if kind.is_measured else kind.device)
            seconds[like] = time.perf_counter() - start
        points: list[tuple[int, float, float]] = []
        try:
            if kind.is_measured:
                if kind.model not in models:
                    models[kind.model] = _Model.of(cell)
                model = models[kind.model]
                points = [(size, model.flops(cell, size), 0.0) for size in kind.chosen()]
        except Unsupported:
            pass
        forecasts.append(Forecast(points, seconds[like]))
    return forecasts


@dataclass(frozen=True)
class _Model:
    """What the closed forms need of a model: its layers, and what stands around them."""

    layers: list[tuple[LayerParts, Hashable]]
    """The parts of every layer, as the decoder runs them, and what makes two of them alike."""
    head_flops: float
    """FLOPs of the LM head for one token."""
    outside_flops: float
    """FLOPs of what makes visual tokens, for one of them."""

    @classmethod
    def of(cls, cell: Cell) -> "_Model":
        workload = build(cell, "meta")
        layers: list[tuple[LayerParts, Hashable]] = []
        for parts, _, _ in workload.layers:
            shapes = tuple(p.shape for p in parts.layer.parameters())
            layers.append((parts, (parts.window, shapes)))
        rows = cell.batch * _logit_rows(cell, workload.context.layout)
        outside = sum(workload.outside_flops.values())
        return cls(
            layers,
            workload.head_flops / max(1, rows if cell.pass_ != "decode" else cell.batch),
            outside / max(1, cell.batch * cell.num_visual),
        )

    def flops(self, cell: Cell, num_visual: int) -> float:
        """Of one iteration: a backward is two forwards, a checkpointed layer has one more.

        Where ranks share a sequence, of the rank that a prediction is of.
        """
        from workbench.lvlm.attention.linear import system_on

        model, sized = resolve(cell.model), cell.model_copy(update={"num_visual": num_visual})
        system, layout = system_on(cell, model), own_layout(sized, META)
        places = places_of(sized)
        if cell.sharing > 1:
            places = system.places(model, sized, layout)
        if cell.scope == "layer":
            places = (system.single(model, places, cell.layer),)
        totals: Counter[Hashable] = Counter()
        costs: dict[Hashable, int] = {}
        for (parts, like), place in zip(self.layers, places, strict=True):
            kind = like, place.kind
            totals[kind] += 1
            if kind not in costs:
                costs[kind] = system.forward_flops(parts, place, sized)
        layers = float(sum(count * costs[kind] for kind, count in totals.items()))
        rows = _logit_rows(sized, layout)
        around = cell.batch * (rows * self.head_flops + num_visual * self.outside_flops)
        if cell.pass_ == "decode":
            return layers + cell.batch * self.head_flops
        if cell.pass_ != "train":
            return layers + around
        return (4 if cell.checkpoint else 3) * layers + 3 * around


def _logit_rows(cell: Cell, layout: Layout) -> int:
    """Rows of a sample that the LM head takes."""
    return layout.num_text + (cell.logits == "all") * layout.num_visual


def _seconds(kind: Kind, forecast: Forecast) -> list[float]:
    """For each |V| of a kind."""
    if not kind.is_measured or not forecast.known:
        return [forecast.seconds] * len(kind.visual)
    point, device = kind.point, kind.device
    flops, peak = forecast.at(np.array(kind.visual, dtype=np.float64))
    iteration = flops / matmul_rate(point.cell.dtype, device)
    num_samples = point.protocol.min_samples
    samples = np.where(iteration > SLOW_S, min(num_samples, 3), num_samples)
    timed = np.minimum(samples * iteration, point.protocol.max_seconds)
    fits = peak <= min(_limits(point, device), default=math.inf)
    duration = np.where(fits, 2 * iteration + timed, iteration / 2)
    seconds: list[float] = (forecast.seconds + duration).tolist()
    return seconds


def _limits(point: Point, device: str) -> list[int]:
    if device == "cpu":
        return asked_limits(point)
    if device in DEVICES:
        return [*asked_limits(point), DEVICES[device].capacity_bytes or 0]
    return [*asked_limits(point), torch.cuda.get_device_properties(device).total_memory]


@cache
def matmul_rate(dtype: str, device: str) -> float:
    """FLOP/s of a square matmul on ``cpu`` or ``cuda:N``, from about 0.3 s of them.

    Of a card that is not here the datasheet's peak stands in.
    """
    if device in DEVICES and device != "cpu":
        peak = DEVICES[device].peak(dtype)
        assert peak is not None, "every card states its peaks"
        return peak
    size = 512 if device == "cpu" else 4096  # where it is emulated, bfloat16 takes its time
    a = torch.randn(size, size, device=device).to(DTYPES[dtype])
    _multiply(a, device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < RATE_SECONDS:
        _multiply(a, device)
        count += 1
    return count * 2 * size**3 / (time.perf_counter() - start)


def _multiply(a: torch.Tensor, device: str) -> None:
    a @ a
    if device != "cpu":
        torch.cuda.synchronize(device)
