"""What the dashboard and the report both need between a store's frame and a figure."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from workbench.analysis import CONDITIONS, SUBJECT, series_label
from workbench.devices import DEVICES
from workbench.figures import Look, looks
from workbench.store import RunInfo, Store


def prepared(frame: pd.DataFrame) -> pd.DataFrame:
    """The store's frame with ``series``, the name of the line that each record belongs to."""
    # A single layer has no logits: that option is no difference between two layers.
    logits = frame["logits"].where(frame["scope"] != "layer", "all")
    return frame.assign(series=series_label(frame) if len(frame) else "", logits=logits)


def all_looks(frame: pd.DataFrame) -> dict[str, Look]:
    """The look of every series of the frame."""
    rows = frame[["series", "attention", "kernel"]].drop_duplicates()
    return looks([(str(a), str(b), str(c)) for a, b, c in rows.itertuples(index=False)])


def newest_of_each(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each (key, source, device): the one that was added last, whatever its run."""
    return frame.drop_duplicates(["key", "source", "device"], keep="last")


def samples_of(store: Store) -> dict[tuple[str, str, str, str], list[float]]:
    """Seconds of every timed cell by (run, key, source, device)."""
    return {
        (run, record.cell.key, record.source, record.device): record.samples["time_s"]
        for run, record in store.items()
        if record.samples.get("time_s")
    }


def value_counts(frame: pd.DataFrame, column: str) -> list[Any]:
    """The values of a column, the most frequent first; None for what is not set."""
    counts = frame[column].value_counts(dropna=False)
    return [None if pd.isna(value) else value for value in counts.index]


def where(frame: pd.DataFrame, facts: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that agree with ``facts``; None agrees with what is not set."""
    keep = pd.Series(True, index=frame.index)
    for column, value in facts.items():
        keep &= frame[column].isna() if value is None else frame[column] == value
    return frame[keep]


def subjects(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every combination of subject and conditions that the frame holds, in its order."""
    columns = [*SUBJECT, *CONDITIONS]
    rows = frame[columns].drop_duplicates().to_dict("records")
    return [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in rows]


def capacities(frame: pd.DataFrame, runs: Iterable[RunInfo]) -> dict[str, int]:
    """Bytes that a process can have, by device name, where that is known.

    Predicted: the device entry. Measured: the card as its driver reports it, or the memory limit
    that the sweep gave its workers.
    """
    found: dict[str, int] = {}
    for name in frame.loc[frame["source"] == "predicted", "device"].unique():
        capacity = DEVICES[name].capacity_bytes if name in DEVICES else None
        if capacity:
            found[name] = capacity
    measured = frame[frame["source"] == "measured"]
    for run in runs:
        devices = measured.loc[measured["run"] == run.id, "device"].unique()
        protocols = [
            grid.get("protocol") or {}
            for grid in run.spec.get("grids", [])
            if grid.get("source") == "measured"
        ]
        limits = {int(p["memory_limit"]) for p in protocols if p.get("memory_limit")}
        for name in devices:
            if len(limits) == 1:
                found[name] = next(iter(limits))
            elif run.environment.gpu_memory_bytes and name == run.environment.gpu:
                found[name] = run.environment.gpu_memory_bytes
    return found
