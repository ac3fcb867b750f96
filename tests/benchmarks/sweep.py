"""What a sweep of 50 small cells costs beside its timed iterations, a cell, in a warm worker."""

import tempfile
import time
from pathlib import Path

from workbench.store import Store
from workbench.sweep.run import run_sweep
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.sweep import Grid, Sweep

NUM_CELLS = 50
LIMIT_S = 1.5


def overhead_s() -> float:
    """Wall time of the whole sweep less every sample, over its cells, on the CPU."""
    grid = Grid(
        device="cpu",
        models=("qwen2-0.5b",),
        dtypes=("float32",),
        visual=tuple(range(8, 8 + NUM_CELLS)),
        protocol=Protocol(min_samples=3, precision=None),
    )
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "s.db", time.perf_counter()
        summary = run_sweep(Sweep(name="bench", grids=(grid,)), path)
        wall = time.perf_counter() - start
        assert summary.counts == {"ok": NUM_CELLS}
        with Store.open(path) as store:
            timed = sum(sum(record.samples["time_s"]) for record in store.records())
    return (wall - timed) / NUM_CELLS
