"""How fast a store of a million metric rows is filled and read.

Limits: import 4 s, any frame 1 s, on two cores.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.store import Store
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.record import Environment, Record

NUM_ROWS = 1_000_000
LIMITS = {"import_s": 4.0, "frame_s": 1.0, "frame_of_one_metric_s": 1.0, "fit_s": 1.0}


def records(count: int) -> Iterator[Record]:
    """Records with every metric, integers and floats in turn."""
    for i in range(count):
        numbers = {m: i * 10**6 if at % 2 else i / 7 for at, m in enumerate(METRICS)}
        cell = make_cell(num_visual=i + 1, attention=("s_attn", "d_attn")[i % 2])
        yield Record(
            cell=cell,
            source="measured",
            device="cpu",
            status="ok",
            metrics=numbers,
            samples={"time_s": [0.1, 0.2, 0.3]},
        )


@contextmanager
def timed(times: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times[name] = round(time.perf_counter() - start, 3)


def measure() -> dict[str, float]:
    """Fill a store in a temporary folder and read it back: seconds by name."""
    import pandas as pd

    from workbench.analysis import fit

    times: dict[str, float] = {}
    made = list(records(-(-NUM_ROWS // len(METRICS))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.db"
        with Store.open(path, "w") as store:
            run = store.begin_run("bench", {}, Environment())
            with timed(times, "import_s"):
                store.add_many(run, made)
        del made
        frames: dict[str, Callable[[Store], pd.DataFrame]] = {
            "frame_s": lambda store: store.frame(),
            "frame_of_one_metric_s": lambda store: store.frame(metrics=["time_s"]),
        }
        for name, read in frames.items():
            with timed(times, name), Store.open(path) as store:
                frame = read(store)
        with timed(times, "fit_s"):
            fit(frame, ["time_s"])
    return times
