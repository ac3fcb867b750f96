"""``validate``: predictions against the measured records of a store."""

from typing import Annotated, Any

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson, Calibrations
from workbench.commands.checks import check_store
from workbench.commands.stores import StorePath
from workbench.vocabulary.errors import Faults

HEAD = ("cells", "median error", "worst", "bias")


def validate(
    store: StorePath,
    run: Annotated[str | None, typer.Option(help="One run; all without it.")] = None,
    device: Annotated[
        str | None, typer.Option(help="The entry to predict for, where names do not tell.")
    ] = None,
    calibration: Calibrations = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Add the predictions to the store, as a run.")
    ] = False,
    json_: AsJson = False,
) -> None:
    """How far predictions are from measured records: median, worst and bias."""
    with show.waiting("predicting what was measured"):
        from workbench.sweep.validate import validation
        from workbench.vocabulary.calibration import Choice

        faults = Faults()
        choice: Choice | None = None
        with faults:
            check_store(store)
        with faults:
            choice = Choice.of(calibration) if calibration else None
        faults.raise_all()
        result = validation(store, run, device, choice, keep)
    if json_:
        show.emit(result)
        return
    if not result["summary"]:
        print("no measured record that ended ok: nothing to validate")
        return
    show.say(_answer(result["summary"]))
    show.table(("metric", "system", *HEAD), _rows(result["summary"], "attention"))
    print()
    show.table(("metric", "|V|", *HEAD), _rows(result["by_visual"], "num_visual"))


def _answer(summary: list[dict[str, Any]]) -> str:
    """How far off predictions are at worst, a metric after the other, the worst one first."""
    from workbench.vocabulary.metrics import METRICS

    worst: dict[str, float] = {}
    for row in summary:
        worst[row["metric"]] = max(worst.get(row["metric"], 0.0), row["worst"])
    metrics = sorted(worst, key=lambda metric: worst[metric], reverse=True)
    words = (f"{METRICS[metric].label} by {worst[metric]:.1%}" for metric in metrics)
    return f"predictions are off, at worst: {', '.join(words)}"


def _rows(summary: list[dict[str, Any]], field: str) -> list[tuple[str, ...]]:
    return [
        (
            row["metric"],
            f"{row[field]:,}" if isinstance(row[field], int) else row[field],
            str(row["num_cells"]),
            f"{row['median']:.2%}",
            f"{row['worst']:.2%}",
            f"{row['bias']:+.2%}",
        )
        for row in summary
    ]
