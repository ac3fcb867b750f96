"""What is made of the records in ``reports/reference``: ``python -m tests.reference``.

Rewrites the packaged calibrations and thresholds, the report beside the records and the README's
table of headline figures; ``tests.pictures`` makes the pictures of docs/. Nothing is measured: the
same records give the same figures.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from workbench.commands.case import answer_case
from workbench.probe.predicting.limit import predicted_limit
from workbench.report.case import read_case
from workbench.report.case_table import case_table
from workbench.report.write import write_report
from workbench.store import Store
from workbench.sweep.calibrate import calibrate
from workbench.sweep.calibration_transfer import carried
from workbench.telling.published import D_ATTN, S_ATTN, SPEED_RATIO, VISUAL_RATIO
from workbench.vocabulary.calibration import PACKAGED, Calibration
from workbench.vocabulary.calibration_parts import Way
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.record import Record
from workbench.vocabulary.thresholds import FILE as THRESHOLDS
from workbench.vocabulary.thresholds import KnownThreshold
from workbench.vocabulary.units import digits

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "reports" / "reference" / "h100-80gb"
STORE = FOLDER / "records.db"
README = ROOT / "README.md"
METHOD = ROOT / "docs" / "method.md"
CASE = "frames=100,gpus=32"
"""The reader's case that the report shows: what ``workbench report --case`` takes."""
ALONE = "reference-part-3"
"""The run of single layers, whose fit is tested on whole models."""
DEVICE, CARRIED_TO = "h100-80gb", "h200-141gb"
DEFAULTS = Cell(num_visual=1).document()
BEGIN, END = "<!-- begin: python -m tests.reference -->", "<!-- end -->"
CHUNK = 8192
COLUMNS = (
    "",
    "S-Attn, eager",
    "S-Attn, best fused",
    "D-Attn",
    "D-Attn, chunks of 8,192",
    "the paper's S-Attn",
    "the paper's D-Attn",
)


class Kind(NamedTuple):
    """What a row of the table is of."""

    scope: str
    pass_: str
    sharded: bool


STEP, PREFILL = Kind("decoder", "train", True), Kind("decoder", "forward", False)
LAYER = Kind("layer", "train", False)


def read_records(store: Path = STORE) -> list[Record]:
    """Every record, in the order that they were made."""
    with Store.open(store) as found:
        return found.records()


def _varied(cell: Cell) -> bool:
    """Whether a cell differs from the headline's in more than system, kernel, |V| and chunks."""
    plain = make_cell(
        attention=cell.attention,
        kernel=cell.kernel,
        scope=cell.scope,
        num_visual=cell.num_visual,
        num_text=400,
        chunk=cell.chunk,
        **{"pass": cell.pass_},
        **({"logits": "text"} if cell.scope == "decoder" else {}),
        **({"checkpoint": True, "zero": 3, "world_size": 32} if cell.zero else {}),
    )
    return cell.key != plain.key


def of(records: Iterable[Record], kind: Kind, system: str) -> list[Record]:
    """Records of a kind under one column's system, in its plain form or in chunks."""
    chosen = []
    for record in records:
        cell = record.cell
        if (cell.scope, cell.pass_, cell.zero == 3) != kind or _varied(cell):
            continue
        if cell.attention == "s_attn":
            name = "eager" if cell.kernel == "eager" else "fused"
        else:
            name = cell.attention if cell.chunk is None else f"{cell.attention} in chunks"
        chosen += [record] if name == system else []
    return chosen


SYSTEMS = ("eager", "fused", "d_attn", "d_attn in chunks")


def largest(records: list[Record], system: str) -> Record:
    """The largest training step that ran."""
    ran = [r for r in of(records, STEP, system) if r.status == "ok"]
    return max(ran, key=lambda r: r.cell.num_visual)


def fastest(records: list[Record], kind: Kind, system: str, num_visual: int) -> Record | None:
    """The record of the system's fastest kernel there; None where nothing was timed."""
    timed = [
        r
        for r in of(records, kind, system)
        if r.cell.num_visual == num_visual and r.metrics.get("time_s")
    ]
    return min(timed, key=lambda r: float(r.metrics["time_s"] or 0), default=None)


def seconds(records: list[Record], kind: Kind, system: str, num_visual: int) -> str:
    """The seconds of a cell of the table, and the kernel where it was a choice."""
    found = fastest(records, kind, system, num_visual)
    if found is None:
        beyond = [
            r
            for r in of(records, kind, system)
            if r.status == "oom" and r.cell.num_visual <= num_visual
        ]
        return "out of memory" if beyond else "not measured"
    value = float(found.metrics["time_s"] or 0)
    words = f"{digits(value, 4 if value >= 10 else 3)} s"
    return f"{words} ({found.cell.kernel})" if system == "fused" else words


def table(records: list[Record]) -> list[tuple[str, ...]]:
    """The headline rows, published figures last."""
    top = [largest(records, system) for system in SYSTEMS]
    reach = [f"{r.cell.num_visual:,}" for r in top]
    reach[1] += f" ({top[1].cell.kernel})"
    none = ("–", "–")
    rows = [
        (
            "largest \\|V\\| of a training step",
            *reach,
            f"{S_ATTN.max_visual:,}",
            f"{D_ATTN.max_visual:,}",
        ),
    ]
    for name, kind, size, published in (
        ("a training step", STEP, 9_000, (f"{S_ATTN.seconds:g} s", f"{D_ATTN.seconds:g} s")),
        ("a training step", STEP, 74_000, none),
        ("a prefill", PREFILL, 9_000, none),
        ("a prefill", PREFILL, 74_000, none),
        ("one layer, forward and backward", LAYER, 65_536, none),
    ):
        rows.append(
            (
                f"{name}, \\|V\\| = {size:,}",
                *(seconds(records, kind, system, size) for system in SYSTEMS),
                *published,
            )
        )
    return rows


def ratios(records: list[Record]) -> str:
    """D-Attn against both baselines, and the paper's own ratios."""
    eager, fused, plain, chunked = (largest(records, s).cell.num_visual for s in SYSTEMS)

    def speed(system: str, num_visual: int) -> float:
        pair = [fastest(records, STEP, name, num_visual) for name in (system, "d_attn")]
        slow, quick = (float(r.metrics["time_s"] or 0) for r in pair if r is not None)
        return slow / quick

    return (
        f"Over eager S-Attn, D-Attn takes {plain / eager:.1f}× the tokens (the paper "
        f"{VISUAL_RATIO:.1f}×) and a step at 9,000 is {speed('eager', 9_000):.1f}× as fast (the "
        f"paper {SPEED_RATIO:.1f}×). Over the best fused baseline it takes {plain / fused:.2f}× "
        f"the tokens, {chunked / fused:.2f}× in chunks, and a step is "
        f"{speed('fused', 9_000):.2f}× as fast at 9,000 and {speed('fused', 74_000):.2f}× at "
        "74,000."
    )


def block(records: list[Record]) -> str:
    """What stands between the README's marks."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *table(records)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([BEGIN, *lines, "", ratios(records), END])


def with_block(text: str, records: list[Record]) -> str:
    """The README with its headline figures recomputed."""
    marks = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    assert marks.search(text), "the README has the marks of its headline figures"
    return marks.sub(lambda _: block(records), text)


ERRORS: tuple[tuple[str, Way, str], ...] = (
    ("training step", "alone", "training step"),
    ("prefill", "alone", "prefill"),
    ("decode, host-bound", "alone", "decode, host-bound"),
    ("decode, host-bound, a tenth at a time", "cells", "decode, host-bound"),
)
"""Rows of the method page: name, how the cells were held out, their kind."""


def with_errors(page: str, found: Calibration) -> str:
    """The method page with the rows of held-out errors recomputed."""
    for name, way, kind in ERRORS:
        spread = found.held_out_by_kind[way][kind]
        cells = (
            name,
            str(spread.num_cells),
            f"{spread.median * 100:.1f} %",
            f"{spread.worst * 100:.1f} %",
        )
        row = re.compile(rf"^\| {re.escape(name)} \|.*\|$", re.MULTILINE)
        assert row.search(page), f"the method page has a row of {name}"
        page = row.sub(f"| {' | '.join(cells)} |", page)
    return page


def calibrations() -> None:
    """The packaged calibration, the one carried over, the records' copy, the method's rows."""
    found = calibrate([STORE], alone=ALONE)
    for calibration in (found, carried(found, CARRIED_TO)):
        calibration.write(PACKAGED / f"{calibration.device}.json")
    found.write(FOLDER / "calibration.json")
    METHOD.write_text(with_errors(METHOD.read_text(encoding="utf-8"), found), encoding="utf-8")


def known_thresholds() -> list[KnownThreshold]:
    """The thresholds of the campaign beside what is predicted for the ranks that were emulated."""
    document = json.loads((FOLDER / "thresholds.json").read_text(encoding="utf-8"))
    found = []
    for held in document.values():
        fields = {name: value for name, value in held["cell"].items() if value is not None}
        cell = Cell.model_validate(fields)
        layers = int(held["flags"][0].partition("; ")[2].split()[0])
        predicted = predicted_limit(cell, DEVICE, emulate=layers).max_visual
        assert predicted is not None, "some visual token fits"
        ends = {name: held[name] for name in ("max_visual", "fails_at")}
        found.append(
            KnownThreshold(device=DEVICE, cell=cell, emulate=layers, predicted=predicted, **ends)
        )
    return found


def thresholds() -> None:
    """The packaged thresholds."""
    rows = [known.model_dump(mode="json", by_alias=True) for known in known_thresholds()]
    kept = [
        {**row, "cell": {k: v for k, v in row["cell"].items() if v != DEFAULTS.get(k)}}
        for row in rows
    ]
    THRESHOLDS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def report() -> None:
    """The report over the records: its Markdown shows the SVG files, which are the smaller."""
    asked = read_case(CASE)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder)
        write_report(STORE, written, case=case_table(asked, answer_case(asked)), case_text=CASE)
        shutil.rmtree(FOLDER / "report", ignore_errors=True)
        (FOLDER / "report" / "figures").mkdir(parents=True)
        for path in written.glob("figures/*.svg"):
            shutil.copy(path, FOLDER / "report" / "figures")
        shutil.copy(written / "report.html", FOLDER / "report")
        shutil.copytree(written / "data", FOLDER / "report" / "data")
        text = (written / "report.md").read_text(encoding="utf-8")
        text = re.sub(r"(\]\(figures/[^)]*)\.png\)", r"\1.svg)", text)
        (FOLDER / "report" / "report.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Rewrite all of it."""
    records = read_records()
    README.write_text(with_block(README.read_text(encoding="utf-8"), records), encoding="utf-8")
    calibrations()
    thresholds()
    report()


if __name__ == "__main__":
    main()
