"""How far predictions are from what was measured, record by record of a store."""

from collections.abc import Iterable
from statistics import median
from typing import Any, NamedTuple

from workbench.probe.machine.environment import environment
from workbench.probe.predicting.emulation import emulated_layers
from workbench.probe.predicting.predict import predict
from workbench.store import Store
from workbench.vocabulary.calibration import Choice
from workbench.vocabulary.devices import entry_of
from workbench.vocabulary.record import Record, Status

COMPARED = ("flops", "peak_bytes", "time_s")
"""Metrics that are both measured and predicted."""


class Error(NamedTuple):
    """One metric of one measured cell beside its prediction for the same device."""

    key: str
    attention: str
    kernel: str
    num_visual: int
    device: str
    metric: str
    measured: float
    predicted: float

    @property
    def relative(self) -> float:
        """(predicted − measured) / measured."""
        return (self.predicted - self.measured) / self.measured


class Summary(NamedTuple):
    """Relative errors of one metric, of one system or at one |V|."""

    metric: str
    group: str | int
    num_cells: int
    median: float
    """The median absolute error."""
    worst: float
    bias: float
    """The median signed error: below 0, predictions are too low."""


def validate(
    records: Iterable[Record],
    device: str | None = None,
    calibrations: Choice | None = None,
    predictions: list[Record] | None = None,
) -> list[Error]:
    """Predict every measured record that ended ``ok``; ``device`` overrides the entry's name.

    ``predictions`` is a list to which every prediction is added.

    Raises RequestError for a calibration of a device that no record is of.
    """
    errors = []
    choice, predicted_for = calibrations or Choice(), set()
    for record in records:
        if record.source != "measured" or record.status != Status.OK:
            continue
        name = device or entry_of(record.device)
        predicted_for.add(name)
        predicted = predict(record.cell, name, choice.file(name), emulate=emulated_layers(record))
        if predictions is not None:
            predictions.append(predicted)
        for metric in COMPARED:
            pair = record.metrics.get(metric), predicted.metrics.get(metric)
            if pair[0] and pair[1] is not None:
                cell = record.cell
                errors.append(
                    Error(
                        cell.key,
                        cell.attention,
                        cell.kernel,
                        cell.num_visual,
                        name,
                        metric,
                        float(pair[0]),
                        float(pair[1]),
                    )
                )
    choice.check(predicted_for)
    return errors


def summarise(errors: Iterable[Error], field: str = "attention") -> list[Summary]:
    """Median, worst and bias by metric and a field of the errors."""
    groups: dict[tuple[str, Any], list[float]] = {}
    for error in errors:
        groups.setdefault((error.metric, getattr(error, field)), []).append(error.relative)
    return [
        Summary(
            metric,
            group,
            len(members),
            median(map(abs, members)),
            max(map(abs, members)),
            median(members),
        )
        for (metric, group), members in sorted(groups.items())
    ]


def validation(
    path: Any,
    run: str | None = None,
    device: str | None = None,
    calibrations: Choice | None = None,
    keep: bool = False,
) -> dict[str, Any]:
    """The JSON document of ``workbench validate``; ``keep`` adds the predictions to the store."""
    with Store.open(path) as store:
        records = store.records(run)
    predictions: list[Record] = []
    errors = validate(records, device, calibrations, predictions)
    run_id = _keep(path, predictions) if keep and predictions else None
    return {
        "store": str(path),
        "run": run_id,
        "summary": _documents("attention", summarise(errors)),
        "by_visual": _documents("num_visual", summarise(errors, "num_visual")),
        "cells": [{**error._asdict(), "relative": error.relative} for error in errors],
    }


def _keep(path: Any, predictions: Iterable[Record]) -> str:
    """A run of its own with each prediction once; its name."""
    each = {(record.cell.key, record.device): record for record in predictions}
    with Store.open(path, "w") as store:
        run = store.begin_run("validate", {}, environment("cpu"), new=True)
        store.add_many(run, each.values())
    return run


def _documents(field: str, rows: Iterable[Summary]) -> list[dict[str, Any]]:
    return [
        {
            "metric": row.metric,
            field: row.group,
            **dict(zip(row._fields[2:], row[2:], strict=True)),
        }
        for row in rows
    ]
