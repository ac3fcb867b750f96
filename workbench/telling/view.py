"""What the dashboard and the report both need between a store's frame and a figure."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.analysis import CONDITIONS, SUBJECT, group_codes, kinds, series_label, systems_of
from workbench.figures import UNSPLIT, Look, looks
from workbench.store import RecordId, RunInfo, Store
from workbench.vocabulary.devices import DEVICES, Device
from workbench.vocabulary.record import Record


def prepared(frame: pd.DataFrame) -> pd.DataFrame:
    """``Store.frame(details=CAPACITIES)`` with ``series``, the name of each record's line."""
    # A single layer has no logits: that option is no difference between two layers.
    logits = frame["logits"].where(frame["scope"] != "layer", "all")
    return frame.assign(series=series_label(frame) if len(frame) else "", logits=logits)


def all_looks(frame: pd.DataFrame) -> dict[str, Look]:
    """The look of every series of the frame."""
    return looks(systems_of(frame))


def newest_of_each(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each (key, source, device): the one that was added last, whatever its run."""
    return frame.drop_duplicates(["key", "source", "device"], keep="last")


CAPACITIES = ("capacity_bytes", "memory_limit_bytes")
"""Details that say what a cell could have: the card's bytes, or the limit of its worker."""


class Details:
    """What records hold beside their metrics, read from the store for the cells asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[RecordId, Record] = {}

    def some(self, identities: Iterable[RecordId]) -> dict[RecordId, Record]:
        """The records of (run, key, source, device)."""
        keys = list(identities)
        missing = [identity for identity in keys if identity not in self._held]
        if missing:
            with Store.open(self._path) as store:
                self._held |= store.some(missing)
        return {identity: self._held[identity] for identity in keys if identity in self._held}

    @property
    def read(self) -> Mapping[RecordId, Record]:
        """The records that were asked for until now."""
        return self._held

    def holding(self, names: Sequence[str]) -> set[RecordId]:
        """The records that have something under any of ``names``."""
        with Store.open(self._path) as store:
            return store.with_details(names)

    def get(self, key: RecordId, default: Sequence[float] = (), /) -> Sequence[float]:
        """The seconds of a cell's iterations, as ``analysis.headline`` asks for them."""
        row = self.some([key]).get(key)
        return default if row is None else row.samples.get("time_s", default)


def identities(frame: pd.DataFrame) -> list[RecordId]:
    """(run, key, source, device) of every row."""
    columns = [frame[name].tolist() for name in ("run", "key", "source", "device")]
    return list(zip(*columns, strict=True))


def where(frame: pd.DataFrame, facts: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that agree with ``facts``; None agrees with what is not set."""
    keep = pd.Series(True, index=frame.index)
    for column, value in facts.items():
        keep &= frame[column].isna() if value is None else frame[column] == value
    return frame[keep]


def splitting(frame: pd.DataFrame) -> list[str]:
    """The conditions that vary along one subject's cells of one source and device.

    Figures are drawn apart by these. A condition that only tells two devices apart, such as the
    data type of a CPU beside that of a card, is named with the device instead.
    """
    where_ = [*SUBJECT, "source", "device"]
    distinct = kinds(frame, [*where_, *CONDITIONS]).distinct
    groups = group_codes(distinct, where_)
    return [
        name
        for name in CONDITIONS
        if len({*zip(groups, group_codes(distinct, [name]), strict=True)}) > len({*groups})
    ]


def subjects(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every combination of subject and splitting conditions that the frame holds, in its order."""
    columns = [*SUBJECT, *splitting(frame)]
    rows = frame[columns].drop_duplicates().to_dict("records")
    return [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in rows]


def capacities(frame: pd.DataFrame, runs: Iterable[RunInfo]) -> dict[str, int]:
    """Bytes that a process can have, by device name, where all of its cells agree on them.

    As the records say (CAPACITIES are columns of ``frame``); else the device entry of a
    prediction, or the card as its driver says.
    """
    capacities: dict[str, int] = {}
    environments = {run.id: run.environment for run in runs}
    for device, rows in frame.groupby("device"):
        stated = rows[CAPACITIES[0]].fillna(rows[CAPACITIES[1]])
        sizes = {int(size) for size in stated.dropna().unique()}
        if not sizes and (rows["source"] == "predicted").all() and device in DEVICES:
            size = DEVICES[str(device)].capacity_bytes
            sizes = set() if size is None else {size}
        if not sizes:
            cards = [environments[run] for run in rows["run"].unique()]
            sizes = {
                card.gpu_memory_bytes
                for card in cards
                if card.gpu == device and card.gpu_memory_bytes is not None
            }
        if len(sizes) == 1:
            capacities[str(device)] = sizes.pop()
    return capacities


COUNTED = {
    "weights": "weight_bytes",
    "gradients": "gradient_bytes",
    "activations": "activation_bytes",
}
"""Kinds of a measured peak that have a metric of their own."""


def memory_kinds(frame: pd.DataFrame, details: Details) -> pd.DataFrame:
    """The peak of each cell by kind: system, source, device, num_visual, kind, bytes.

    As the record tells; else the kinds that have a metric, and what is left of the peak (UNSPLIT).
    """
    lines = []
    needed = ["run", "key", "source", "device", "series", "num_visual", "peak_bytes"]
    rows = frame.loc[frame["peak_bytes"].notna(), [*needed, *COUNTED.values()]]
    records = details.some(identities(rows))
    for identity, row in zip(identities(rows), rows.to_dict("records"), strict=True):
        by_kind = records[identity].details.get("memory_by_kind")
        kinds = by_kind if isinstance(by_kind, dict) else {}
        kinds = {str(kind): size for kind, size in kinds.items() if isinstance(size, int)}
        if not kinds:
            sizes = {kind: row[name] for kind, name in COUNTED.items()}
            kinds = {kind: int(size) for kind, size in sizes.items() if not pd.isna(size)}
            kinds[UNSPLIT] = max(int(row["peak_bytes"]) - sum(kinds.values()), 0)
        facts = {
            "system": row["series"],
            "source": row["source"],
            "device": row["device"],
            "num_visual": row["num_visual"],
        }
        lines += [{**facts, "kind": kind, "bytes": size} for kind, size in kinds.items()]
    columns = ["system", "source", "device", "num_visual", "kind", "bytes"]
    return pd.DataFrame(lines, columns=columns)


def same_card(entry: Device, driver: str) -> bool:
    """Whether the driver's name of a card, such as 'NVIDIA H200', is that of a device entry."""
    words = driver.split()
    return len(words) > 1 and words[:2] == entry.label.split()[:2]
