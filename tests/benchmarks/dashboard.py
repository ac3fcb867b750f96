"""How fast the dashboard answers over a store of a million metric rows.

Limits: the first page 2 s, any interaction 0.5 s, a figure 2 MB, on two cores.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests import golden
from workbench.store import Store
from workbench.vocabulary.record import Record

NUM_RECORDS = 60_000
NUM_METRIC_ROWS = 1_000_000
MODELS = ("mistral-7b-v0.3", "gemma-2-9b", "llama-3.1-8b", "qwen2-7b")
FIRST_S, INTERACTION_S, FIGURE_BYTES = 2.0, 0.5, 2_000_000
NAME, BEFORE = "million.db", "before.db"
PAGES = (
    "overview",
    "scaling",
    "thresholds",
    "memory",
    "roofline",
    "validation",
    "time",
    "compare",
    "runs",
    "planner",
)
TURNS: dict[str, dict[str, Any]] = {
    "overview": {"pass": "train"},
    "scaling": {"model": "qwen2-7b"},
    "thresholds": {"pass": "train"},
    "memory": {"memory_x": "log"},
    "roofline": {"pass": "train"},
    "validation": {"pass": "train"},
    "time": {"at": 1024},
    "compare": {"compared": "memory"},
    "runs": {"containing": "h100"},
    "planner": {"images": 65},
}
"""A control of a page and another choice."""


class Time(NamedTuple):
    """Seconds of one thing, and what they should be at most."""

    name: str
    seconds: float
    limit: float


def records(count: int, num_metrics: int) -> Iterator[Record]:
    """Cells of several models and passes, measured and predicted, with as many metrics."""
    combinations = [
        (model, pass_, system)
        for model in MODELS
        for pass_ in ("forward", "train")
        for system in golden.SYSTEMS
    ]
    for place in range(count):
        model, pass_, system = combinations[place % len(combinations)]
        # Every cell is measured and predicted, so that all pages have something to show.
        source = (
            ("measured", "cpu")
            if place // len(combinations) % 2
            else (
                "predicted",
                "h100-80gb",
            )
        )
        visual = 64 + 4 * (place // len(combinations) // 2)
        cell = {**system, "model": model, "pass": pass_, "num_visual": visual}
        made = golden.record(*source, **cell)
        more = {f"more_{i}": place + i for i in range(num_metrics - len(made.metrics))}
        yield made.model_copy(update={"metrics": made.metrics | more})


def build(path: Path, count: int = NUM_RECORDS, slower: bool = False) -> None:
    """A store of that many records; ``slower`` by a fifth where it is D-Attn's."""
    made = records(count, -(-NUM_METRIC_ROWS // NUM_RECORDS))
    with Store.open(path, "w") as store:
        run = store.begin_run("bench", {"name": "bench"}, golden.LAPTOP)
        store.add_many(run, map(golden.slower, made) if slower else made)


def build_both(folder: Path) -> Path:
    """The store, and beside it the one that it is compared with."""
    build(folder / BEFORE)
    build(folder / NAME, slower=True)
    return folder / NAME


def measure(path: Path) -> Iterator[Time]:
    """Each page drawn for the first time, then again with one control changed.

    The first look at a store reads it: that of the first page, and that of the comparison.
    Raises AssertionError where a page fails or a figure is larger than it may be.
    """
    from streamlit.testing.v1 import AppTest

    from workbench.dashboard.pages import overview  # noqa: F401  Imports are the server's, not a page's.

    # The first script of a process looks for a terminal, which no server does.
    AppTest.from_string("import streamlit\nstreamlit.title('first')").run()
    gc.freeze()  # As the server does once all is imported.
    before, argv = Path.cwd(), sys.argv
    os.chdir(path.parent)
    sys.argv = ["app.py"]
    try:
        for place, name in enumerate(PAGES):
            code = f"from workbench.dashboard.pages import {name}\n{name}.render()\n"
            test = AppTest.from_string(code, default_timeout=120)
            test.query_params["store"] = path.name
            test.query_params["old_store"] = BEFORE
            reads = place == 0 or name == "compare"
            first = Time(f"{name}, first look", _run(test), FIRST_S if reads else INTERACTION_S)
            if name != "planner":  # Its first look is a process that loads torch.
                yield first
            for key, value in TURNS.get(name, {}).items():
                test.get_by_key(key).set_value(value)
            yield Time(f"{name}, a control changed", _run(test), INTERACTION_S)
    finally:
        os.chdir(before)
        sys.argv = argv


def _run(test) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    test.run()
    took = time.perf_counter() - start
    assert not test.exception, test.exception
    for chart in test.get("plotly_chart"):
        assert len(chart.proto.spec) < FIGURE_BYTES
    return took


def times() -> Iterator[Time]:
    """``measure`` in a process of its own: the dashboard's never loads torch."""
    command = [sys.executable, "-m", "tests.benchmarks.dashboard"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        yield Time(*json.loads(line))


def main() -> None:
    """Print the times of ``measure`` over a store in a temporary folder, a JSON line each."""
    with tempfile.TemporaryDirectory() as folder:
        for time_ in measure(build_both(Path(folder))):
            print(json.dumps(time_), flush=True)


if __name__ == "__main__":
    main()
