"""A report's data bundle as a reader would open it, and its sentences taken apart."""

import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.analysis.series import SYSTEM, series_label
from workbench.vocabulary.cell import OPTION_FLAGS, value_type

PREFIXES = {
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "m": 1e-3,
    "µ": 1e-6,
    "n": 1e-9,
    "p": 1e-12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
QUANTITY = r"(-?[\d.,]+(?:e[+-]\d+)?) (?:([kMGTPmµnp]|[KMGT]i)?(s|B|FLOP))"


def value(text: str) -> float:
    """'13.7 s' -> 13.7, '3.29 GiB' -> bytes."""
    found = re.fullmatch(QUANTITY, text)
    assert found, text
    return float(found[1].replace(",", "")) * PREFIXES[found[2] or ""]


def count(text: str) -> int:
    """'131,072' -> 131072."""
    return int(text.replace(",", ""))


class Bundle:
    """``data/`` of one report; of a cell in several runs the last one counts."""

    def __init__(self, folder: Path) -> None:
        rows = {}
        for row in csv.DictReader((folder / "records.csv").open(encoding="utf-8")):
            rows[self._identity(row)] = self._typed(row)
        for row in csv.DictReader((folder / "metrics.csv").open(encoding="utf-8")):
            number = float(row["value"]) if row["value"] else float("nan")
            rows[self._identity(row)][row["metric"]] = number
        self.samples: dict[Any, list[float]] = defaultdict(list)
        for row in csv.DictReader((folder / "samples.csv").open(encoding="utf-8")):
            if row["metric"] == "time_s":
                self.samples[self._identity(row)].append(float(row["value"]))
        self.details = {}
        for line in (folder / "details.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            self.details[self._identity(row)] = row["details"]
        frame = pd.DataFrame(rows.values(), index=pd.Index(rows.keys(), tupleize_cols=False))
        self.all = frame.assign(series=series_label(frame))
        self.frame = self.all.drop_duplicates(["key", "source", "device"], keep="last")
        self.num_stored = len(self.frame)

    def keep(self, systems: str) -> None:
        """Leave only the cells of the systems that a report says it is about."""
        names = re.split(r", | and ", systems)
        self.frame = self.frame[self.frame["series"].isin(names)]

    @staticmethod
    def _identity(row: dict[str, Any]) -> tuple[str, ...]:
        return row["run"], row["key"], row["source"], row["device"]

    @staticmethod
    def _typed(row: dict[str, Any]) -> dict[str, Any]:
        found = dict(row)
        for name in ("num_visual", "num_text"):
            found[name] = int(row[name])
        for name in OPTION_FLAGS:
            found[name] = row[name] in ("True", "true", "1")
        for name in SYSTEM:
            if value_type(name) is int:
                found[name] = float(row[name]) if row[name] else None
            elif value_type(name) is str:
                found[name] = row[name] or None
        return found

    def rows(self, subject: str, source: str, device: str) -> pd.DataFrame:
        """The cells of 'model · scope · pass' at one place."""
        model, scope, pass_, *_ = subject.split(" · ")
        f = self.frame
        keep = (f["model"] == model) & (f["scope"] == scope) & (f["pass"] == pass_)
        return f[keep & (f["source"] == source) & (f["device"] == device)]

    def cell(self, rows: pd.DataFrame, series: str, num_visual: int) -> pd.Series:
        """One cell."""
        (found,) = (
            row
            for _, row in rows[
                (rows["series"] == series) & (rows["num_visual"] == num_visual)
            ].iterrows()
        )
        return found
