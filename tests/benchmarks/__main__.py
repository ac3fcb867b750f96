"""``python -m tests.benchmarks [GROUP...]``: every figure with its target, one line each.

A timing that misses its target on this machine is said, not hidden, and fails nothing: it belongs
to the machine that ran it. Predictions held against the records of ``reports/reference`` belong to
this code alone: where one misses its limit, the exit code is 1.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from tests.benchmarks import (
    coverage,
    dashboard,
    forecast,
    planner,
    predictions,
    reference,
    report,
    store,
    sweep,
)
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.limit import predicted_limit
from workbench.probe.predicting.predict import predict
from workbench.probe.predicting.traces import forget
from workbench.sweep.machine import cpu_speed
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol


class Figure(NamedTuple):
    """A measured figure and the most it should be."""

    name: str
    value: float
    target: float
    unit: str


TRAINING = {
    "scope": "decoder",
    "pass": "train",
    "num_text": 400,
    "checkpoint": True,
    "zero": 3,
    "world_size": 32,
}


LIMITS: tuple[tuple[dict[str, object], int | None], ...] = (
    ({"attention": "s_attn", "kernel": "eager"}, None),
    ({"attention": "s_attn", "kernel": "sdpa"}, None),
    ({"attention": "s_attn", "kernel": "sdpa", "tiled": True}, None),
    ({"attention": "d_attn", "kernel": "sdpa"}, None),
    ({"attention": "d_attn", "kernel": "sdpa", "chunk": 8192}, None),
    ({"attention": "d_attn", "kernel": "sdpa", "chunk": 8192}, 2),
    (
        {"kernel": "sdpa", "zero": 0, "world_size": 1, "lora": "r=16,alpha=32,targets=all-linear"},
        None,
    ),
)
"""Steps whose threshold is searched, and how many layers of an emulated rank run."""


DIFFERING = (
    "biformer",
    "gated_xattn",
    "hyper_attn",
    "lightning",
    "lsda",
    "moh",
    "pyramid_drop",
)
"""Systems whose layers differ or run many operators: their traces take longest."""


ADAPTERS = {
    "model": "qwen3-vl-8b",
    "scope": "lvlm",
    "pass": "train",
    "checkpoint": True,
    "num_text": 400,
    "lora": "r=16,alpha=32,targets=all-linear",
}


def seconds(run) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


PREDICT = (
    "predict --model mistral-7b-v0.3 --attention d_attn --kernel flash --scope decoder --text 400"
    " --visual 74000 --pass train --checkpoint --zero 3 --world-size 32 --device h100-80gb --json"
)


def cpu_seconds(*words: str) -> float:
    """Of a Python process with these arguments; the least of three."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(took)


def own_cpu_seconds(run) -> float:  # type: ignore[no-untyped-def]
    """Of this process, each time without traces from before; the least of three.

    A machine that others share slows down for seconds at a time, and never speeds up.
    """
    took = []
    for _ in range(3):
        forget()
        before = time.process_time()
        run()
        took.append(time.process_time() - before)
    return min(took)


def starts() -> Iterator[Figure]:
    """CPU seconds of whole processes over those of ``import torch``, all in this run."""
    cpu_seconds("-c", "import torch")  # Files that are read first.
    torch = cpu_seconds("-c", "import torch")
    told = cpu_seconds("-m", "workbench", "--help")
    predicted = cpu_seconds("-m", "workbench", *PREDICT.split())
    yield Figure("workbench --help over importing torch, CPU", told / torch, 0.12, "x")
    name = "workbench predict of a 32-layer step over importing torch, CPU"
    yield Figure(name, predicted / torch, 1.5, "x")
    command = [sys.executable, "-m", "workbench", "--help"]
    times = sorted(
        seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(5)
    )
    yield Figure("workbench --help", times[2], 0.25, "s")


def prediction() -> Iterator[Figure]:
    layer = make_cell(num_visual=131_072, **{"pass": "train"})
    predict(layer, "h100-80gb")  # Imports.
    for kernel in ("eager", "sdpa"):
        cell = layer.replace(kernel=kernel)
        name = f"predict one layer's step, |V| = 131,072, {kernel}, CPU time"
        yield Figure(name, own_cpu_seconds(lambda c=cell: predict(c, "h100-80gb")), 1.0, "s")
    predict(make_cell(num_visual=9000, **TRAINING), "h100-80gb")  # Imports of a rank's parts.
    for visual in (74_000, 10_000_000):
        cell = make_cell(num_visual=visual, attention="d_attn", **TRAINING)
        name = f"predict a 32-layer step, |V| = {visual:,}, CPU time"
        yield Figure(name, own_cpu_seconds(lambda c=cell: predict(c, "h100-80gb")), 0.5, "s")
    for system in DIFFERING:
        cell = make_cell(num_visual=74_000, attention=system, **TRAINING)
        predict(cell.replace(num_visual=9000), "h100-80gb")  # Imports of that system.
        name = f"predict a 32-layer step, {system}, |V| = 74,000, CPU time"
        yield Figure(name, own_cpu_seconds(lambda c=cell: predict(c, "h100-80gb")), 0.5, "s")
    for fields, layers in LIMITS:
        cell = make_cell(num_visual=0, **{**TRAINING, **fields})
        words = " ".join(str(value) for value in fields.values())
        name = f"limit of a 32-layer step, {words}, emulated: {layers or 'no'}, CPU time"
        took = own_cpu_seconds(lambda c=cell, n=layers: predicted_limit(c, "h100-80gb", emulate=n))
        yield Figure(name, took, 2.0, "s")
    cell = make_cell(num_visual=0, **ADAPTERS)
    predict(cell.replace(num_visual=1024), "rtx-4090-24gb")  # Imports of that family and tower.
    name = "limit of Qwen3-VL-8B with adapters, tower and all, CPU time"
    yield Figure(name, own_cpu_seconds(lambda: predicted_limit(cell, "rtx-4090-24gb")), 3.0, "s")


def many_predictions() -> Iterator[Figure]:
    yield Figure(
        f"predict a grid of {len(predictions.CELLS)} layers", predictions.grid_s(), 60.0, "s"
    )
    errors = predictions.memory_errors()
    name = f"peak memory of {len(errors)} small models, predicted against measured"
    yield Figure(f"{name}, median", median(errors), 0.02, "x")
    yield Figure(f"{name}, worst", max(errors), 0.05, "x")


CPU_SIZES = {"bfloat16": (4096, 8192, 16_384), "float32": (2048, 4096)}
"""|V| by the data type that this CPU multiplies fastest; the larger ones would take minutes."""
CPU_TARGETS = {4096: 0.7, 16_384: 0.42}


def layer_seconds(num_visual: int, dtype: str, **system: object) -> float:
    cell = make_cell(num_visual=num_visual, dtype=dtype, **system)
    protocol = Protocol(min_samples=3, precision=None, max_seconds=120)
    return measure(cell, "cpu", protocol).metrics["time_s"]


def cpu_ratios() -> Iterator[Figure]:
    """D-Attn folded over S-Attn, and how it grows: one Mistral layer, forward, 64 text tokens."""
    dtype, _ = cpu_speed()
    folded = []
    for visual in CPU_SIZES[dtype]:
        folded.append(layer_seconds(visual, dtype, attention="d_attn", fold=True))
        if visual in CPU_TARGETS:
            ratio = folded[-1] / layer_seconds(visual, dtype, attention="s_attn")
            name = f"d_attn --fold over s_attn, forward on CPU, {dtype}, |V| = {visual:,}"
            yield Figure(name, ratio, CPU_TARGETS[visual], "x")
    name = f"d_attn --fold, forward on CPU, {dtype}, the most that a doubling of |V| adds"
    yield Figure(name, max(b / a for a, b in pairwise(folded)), 2.1, "x")


def stores() -> Iterator[Figure]:
    times = store.measure()
    for name, limit in store.LIMITS.items():
        yield Figure(f"store of {store.NUM_ROWS:,} metric rows, {name}", times[name], limit, "s")
    for kind, seconds_a_100_mb in store.salvage():
        name = f"save a damaged store of {kind} records, CPU time for 100 MB"
        yield Figure(name, seconds_a_100_mb, store.SALVAGE_LIMIT_S, "s")


def pages() -> Iterator[Figure]:
    for found in dashboard.times():
        name = f"dashboard over {dashboard.NUM_METRIC_ROWS:,} metric rows, {found.name}"
        yield Figure(name, found.seconds, found.limit, "s")


def plans() -> Iterator[Figure]:
    for found in planner.times():
        name = f"planner, Qwen3-VL-8B, LoRA, 4 images of 1280x720, 24 GB: {found.name}"
        yield Figure(name, found.seconds, found.limit, "s")


def reports() -> Iterator[Figure]:
    for found in report.figures():
        name = f"report of {report.NUM_RECORDS:,} records, {found.name}"
        yield Figure(name, found.value, found.limit, found.unit)


def dry_run() -> Iterator[Figure]:
    name = "dry run of 100,000 cells on 256 workers"
    yield Figure(name, forecast.measure(), forecast.LIMIT_S, "s")


def sweeps() -> Iterator[Figure]:
    name = f"sweep of {sweep.NUM_CELLS} small cells on the CPU, beside timed iterations, a cell"
    yield Figure(name, sweep.overhead_s(), sweep.LIMIT_S, "s")


def intervals() -> Iterator[Figure]:
    """How far the coverage of 95 % intervals is from 95 %."""
    for count in (20, 50):
        share = coverage.at_fixed(count)
        name = f"coverage of 95 % intervals, {count} samples: {share:.2%}"
        yield Figure(name, abs(share - 0.95), 0.02, "off")
    for noise in (0.01, 0.02):
        share = coverage.under_the_rule(noise)
        name = f"coverage under the stopping rule, {noise:.0%} noise: {share:.2%}"
        yield Figure(name, abs(share - 0.95), 0.02, "off")


def reference_records() -> Iterator[Figure]:
    for row in reference.rows():
        yield Figure(f"h100-80gb, {row.name}", row.value, row.limit, "off")


BINDING = (reference_records,)
"""Groups whose figures depend on no machine."""
GROUPS = {
    group.__name__: group
    for group in (
        *BINDING,
        starts,
        prediction,
        many_predictions,
        dry_run,
        cpu_ratios,
        stores,
        pages,
        plans,
        reports,
        intervals,
        sweeps,
    )
}


def main(asked: Sequence[str]) -> int:
    """Print the figures of the groups ``asked`` for, or of all; 1 where a binding one misses."""
    unknown = [name for name in asked if name not in GROUPS]
    if unknown:
        print(f"unknown group {unknown[0]!r}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    missed, failed = [], False
    for group in [GROUPS[name] for name in asked or GROUPS]:
        for figure in group():
            met = figure.value <= figure.target
            mark = "met" if met else "MISSED"
            print(
                f"{mark:8}{figure.value:8.3f} {figure.unit} of {figure.target:g}  {figure.name}",
                flush=True,
            )
            missed += [] if met else [figure.name]
            failed |= not met and group in BINDING
    print(json.dumps({"missed": missed}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
