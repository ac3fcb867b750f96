"""``compare-systems``: every attention system on one card, for one model and one input."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson, Calibration, PredictedDevice
from workbench.commands.checks import check_chart
from workbench.commands.completion import completes
from workbench.commands.options import takes_cell_or_pictures
from workbench.interface import PREDICTED_ON

if TYPE_CHECKING:
    from workbench.probe.predicting.systems import Compared
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.pictures import Pictures


@takes_cell_or_pictures
def compare_systems(
    cell: "Cell",
    pictures: "Pictures | None",
    device: PredictedDevice = PREDICTED_ON,
    systems: Annotated[
        list[str] | None,
        typer.Option(
            "--system",
            help="Only this system; may be repeated.",
            show_default="all",
            autocompletion=completes("attention"),
        ),
    ] = None,
    lengths: Annotated[
        bool,
        typer.Option("--lengths", help="Also from which |V| on each takes less than S-Attn."),
    ] = False,
    chart: Annotated[
        Path | None, typer.Option(help="Write a figure of the table here, as HTML.")
    ] = None,
    calibration: Calibration = None,
    json_: AsJson = False,
) -> None:
    """Compare all attention systems: FLOPs, memory, seconds, how far each reaches, what it
    gives up.
    """
    check_chart(chart)
    with show.waiting("predicting every system"):
        from workbench.probe.predicting.systems import compare_systems as compare

        systems_compared = list(
            compare(cell, device, systems or (), True, lengths, calibration, pictures)
        )
    what = f"{cell.model}, {cell.scope}, {cell.pass_}, |V| = {cell.num_visual:,}"
    title = f"{what}, predicted for {device}"
    if chart is not None:
        from workbench.figures.systems import systems_figure

        figure = systems_figure([one.document() for one in systems_compared], title)
        chart.write_text(figure.to_html(include_plotlyjs=True), encoding="utf-8")
    if json_:
        cells = {**cell.document()}
        for name in ("attention", "settings"):
            cells.pop(name)
        show.emit(
            {
                "cell": cells,
                "source": "predicted",
                "device": device,
                "systems": [one.document() for one in systems_compared],
            }
        )
        return
    show.say(_answer(systems_compared))
    show.say(title)
    show.table(COLUMNS, [_row(one) for one in systems_compared])
    if lengths:
        print()
        print("Takes less than S-Attn from |V| =")
        show.table(
            ("system", "FLOPs", "memory", "seconds"), [_lengths(one) for one in systems_compared]
        )


def _answer(systems: list["Compared"]) -> str:
    """Which system is the fastest that fits, with its seconds and how sure they are."""
    from workbench.commands.answer import seconds_words

    timed = {}
    for one in systems:
        record = one.record
        seconds = None if record is None else record.metrics.get("time_s")
        if record is not None and record.status == "ok" and seconds is not None:
            timed[float(seconds)] = (one, record)
    if not timed:
        return "none of them fits"
    seconds = min(timed)
    fastest, record = timed[seconds]
    return f"{fastest.entry.label} is the fastest that fits: {seconds_words(record, seconds)}"


COLUMNS = ("system", "kernel", "FLOPs", "peak memory", "s/it", "largest |V|", "gives up")


def _row(one: "Compared") -> tuple[str, ...]:
    from workbench.figures import quantity

    record = one.record
    if record is None or record.status == "unsupported":
        return (one.entry.label, one.cell.kernel, "", "", "", "", f"not served: {one.error}")
    metrics = record.metrics
    if one.limit is None:
        furthest = ""
    elif one.limit.max_visual is None:
        furthest = "none"
    else:
        beyond = "" if one.limit.fails_at is not None else " or more"
        furthest = f"{one.limit.max_visual:,}{beyond}"
    memory = quantity(metrics.get("peak_bytes"), "B")
    return (
        one.entry.label,
        one.cell.kernel,
        quantity(metrics.get("flops"), "FLOP"),
        memory if record.status == "ok" else f"{memory} (does not fit)",
        quantity(metrics.get("time_s"), "s"),
        furthest,
        "; ".join(filter(None, (one.entry.gives_up, one.error))),
    )


def _lengths(one: "Compared") -> tuple[str, ...]:
    from workbench.probe.predicting.systems import LARGEST, METRICS

    def word(metric: str) -> str:
        if metric not in one.lengths:
            return ""
        length = one.lengths[metric]
        if length is None:
            return f"none up to {LARGEST:,}"
        return f"{length:,}" if length else "the first token"

    return (one.entry.label, *(word(metric) for metric in METRICS))
