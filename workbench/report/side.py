"""One run of a store, as a comparison of two needs it."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from workbench.store import Store
from workbench.vocabulary.errors import RequestError, unknown_name
from workbench.vocabulary.record import Environment


class Side(NamedTuple):
    """One run."""

    run: str
    environment: Environment
    frame: pd.DataFrame
    samples: dict[tuple[str, str, str], list[float]]
    """Samples of the metric by (key, source, device)."""


def read_side(path: Path, metric: str, run: str | None = None, name: str = "store") -> Side:
    """A run of a store, the newest by default. Raises RequestError where there is none."""
    with Store.open(path) as store:
        runs = {info.id: info for info in store.runs()}
        if not runs:
            raise RequestError(f"{name} {path}: holds no run")
        if run is None:
            run = next(reversed(runs))
        if run not in runs:
            raise unknown_name("run", run, runs)
        samples = {
            (record.cell.key, str(record.source), record.device): record.samples[metric]
            for record in store.records(run)
            if metric in record.samples
        }
        return Side(run, runs[run].environment, store.frame(run), samples)
