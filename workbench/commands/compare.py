"""``compare``: a run against an earlier one, cell by cell."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.commands.completion import completes
from workbench.vocabulary.errors import Faults, RequestError

SLOWER_BY = 0.05


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The store of before.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The store of after.")],
    old_run: Annotated[str | None, typer.Option(help="A run of OLD, not the newest.")] = None,
    new_run: Annotated[str | None, typer.Option(help="A run of NEW, not the newest.")] = None,
    metric: Annotated[
        str, typer.Option(help="What to compare.", autocompletion=completes("metric"))
    ] = "time_s",
    threshold: Annotated[
        float, typer.Option(min=0, help="A cell slower by more than this share is exit 1.")
    ] = SLOWER_BY,
    across: Annotated[
        bool, typer.Option("--across", help="Compare though the environments differ.")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Compare two runs cell by cell: faster, slower, the same, or too uncertain to tell."""
    with show.waiting("reading both runs"):
        from workbench.analysis import compare as compare_runs
        from workbench.analysis import environment_differences
        from workbench.report.side import read_side
        from workbench.vocabulary.metrics import METRICS

        faults = Faults()
        with faults:
            _ = METRICS[metric]
        with faults:
            before = read_side(old, metric, old_run, "OLD")
        with faults:
            after = read_side(new, metric, new_run, "NEW")
        faults.raise_all()
    if (before.run, old.resolve()) == (after.run, new.resolve()):
        raise RequestError(f"run {before.run}: both sides are this run; name --old-run")
    different = environment_differences(before.environment, after.environment)
    if different and not across:
        facts = "; ".join(different)
        raise RequestError(f"the environments differ ({facts}); --across compares all the same")
    compared = compare_runs(before.frame, after.frame, before.samples, after.samples, metric)
    worse = compared[(compared["verdict"] == "slower") & ~(compared["ratio"] <= 1 + threshold)]
    plain = compared.astype(object).where(compared.notna(), None)
    rows = [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]
    if json_:
        show.emit(
            {
                "old": before.run,
                "new": after.run,
                "metric": metric,
                "environment": different,
                "regressions": len(worse),
                "cells": rows,
            }
        )
    else:
        _print(rows, different)
    if len(worse):
        show.note(f"{len(worse)} cells are worse by more than {threshold:.0%}")
        raise typer.Exit(1)


def _print(rows: list[dict[str, Any]], different: list[str]) -> None:
    for line in different:
        show.note(f"differs: {line}")
    counts = Counter(row["verdict"] for row in rows)
    show.say(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    cells = []
    for row in rows:
        ratio, low, high = row["ratio"], row["low"], row["high"]
        text = "n/a" if ratio is None else f"{ratio:.3f}"
        if low is not None and high is not None and low != high:
            text += f" [{low:.3f}, {high:.3f}]"
        what = f"{row['model']} {row['series']} {row['pass']} V={row['num_visual']:,}"
        cells.append((row["verdict"], text, row["source"], what, row["note"] or ""))
    show.table(("verdict", "new / old", "source", "cell", "note"), cells)
