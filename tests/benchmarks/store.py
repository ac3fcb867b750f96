"""How fast a store of a million metric rows is filled and read, and a damaged one saved.

Limits: import 4 s, any frame 1 s, on two cores; 10 CPU seconds to save 100 MB.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks import reference
from workbench.store import Store
from workbench.store.merge import merge
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.record import Environment, Record

NUM_ROWS = 1_000_000
SALVAGE_LIMIT_S = 10.0
"""CPU seconds for 100 MB."""
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


def dense() -> Iterator[Record]:
    """Small records, 350 bytes of the file each."""
    names = list(METRICS)[:7]
    for i in range(30_000):
        numbers = {m: i * 10**6 if at % 2 else i / 7 for at, m in enumerate(names)}
        yield Record(
            cell=make_cell(num_visual=i),
            source="predicted",
            device="h100-80gb",
            status="ok",
            metrics=numbers,
        )


def measured() -> Iterator[Record]:
    """The reference records, 3 KB of the file each, under other |V|."""
    with Store.open(reference.FOLDER / "records.db") as store:
        base = store.records()
    for i in range(5_000):
        record = base[i % len(base)]
        yield record.model_copy(update={"cell": record.cell.at(i)})


def salvage() -> Iterator[tuple[str, float]]:
    """CPU seconds a 100 MB to save the rows of a store of either kind with 20 lost pages."""
    chance = random.Random(1)
    for kind in (dense, measured):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "s.db"
            with Store.open(path, "w") as store:
                store.add_many(store.begin_run("bench", {}, Environment()), kind())
            data = bytearray(path.read_bytes())
            for page in (1, *chance.sample(range(2, len(data) // 4096), 20)):
                data[page * 4096 : (page + 1) * 4096] = chance.randbytes(4096)
            path.write_bytes(data)
            start = time.process_time()
            merge([path], Path(folder) / "saved.db")
            yield kind.__name__, (time.process_time() - start) / len(data) * 1e8
