"""What commands print: results on standard output, everything else on standard error."""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.commands.answer import answer

if TYPE_CHECKING:
    from workbench.vocabulary.record import Record

NARROWEST = 6
"""Characters of a column that gives way."""
# Metrics that every result names, with null where it has none.
_ALWAYS = ("flops", "flops_causal", "model_flops", "params", "peak_bytes", "time_s")


def note(line: str) -> None:
    """A line for people, on standard error."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error, where that is a terminal; it is told words, done and total."""
    if not sys.stderr.isatty():
        yield lambda words, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = BarColumn(bar_width=24), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        row = drawn.add_task("", total=1)

        def tell(words: str, done: int, total: int) -> None:
            drawn.update(row, description=words, completed=done, total=total)

        yield tell


def program() -> str:
    """How this program was called, for commands that can be pasted."""
    return sys.argv[0] if Path(sys.argv[0]).name == "workbench" else "workbench"


def emit(document: Any) -> None:
    """The one JSON document of a command."""
    print(json.dumps(document, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns with a heading; on a terminal no wider than it is."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sys.stdout.isatty():
        widths = fitted(widths, shutil.get_terminal_size().columns)
    form = "  ".join(f"{{:<{width}}}" for width in widths)
    for line in lines:
        cut = (
            word if len(word) <= width else f"{word[: width - 1]}…"
            for word, width in zip(line, widths, strict=True)
        )
        print(form.format(*cut).rstrip())


def fitted(widths: Sequence[int], most: int) -> list[int]:
    """Widths of columns, two apart, within ``most``: the widest give way first, down to 6."""
    fitting = list(widths)
    while sum(fitting) + 2 * (len(fitting) - 1) > most and max(fitting) > NARROWEST:
        fitting[fitting.index(max(fitting))] -= 1
    return fitting


def amount(value: float | None, unit: str) -> str:
    """A metric's value with a prefix that suits it: ``3.61 TFLOP``, ``1.20 GiB``, ``12.3 ms``."""
    from workbench.vocabulary.units import quantity

    return quantity(value, unit, 4)


def work(key: str, rows: Iterable[dict[str, Any]]) -> None:
    """What each operator or module does, longest first."""
    table(
        (key, "part", "calls", "FLOPs", "bytes", "time", "bound by"),
        (
            (
                row[key],
                row["part"],
                f"{row['calls']:,}",
                amount(row["flops"], "FLOP"),
                amount(row["bytes"], "B"),
                amount(row["time_s"], "s"),
                row["bound"] or "",
            )
            for row in rows
        ),
    )


def _parts(parts: dict[str, dict[str, Any]]) -> None:
    """How a model's cost splits over its parts, if it has several."""
    if not parts:
        return
    units = {"params": "1", "flops": "FLOP", "time_s": "s", "forward_s": "s", "backward_s": "s"}
    names = [name for name in units if any(name in part for part in parts.values())]
    print()
    table(
        ("part", *names),
        (
            (part, *(amount(costs.get(name), units[name]) for name in names))
            for part, costs in parts.items()
        ),
    )
    print()


def record(record: "Record", as_json: bool) -> None:
    """One result, as the contract's document or as a table."""
    from workbench.vocabulary.metrics import METRICS

    if as_json:
        document = record.document()
        document["metrics"] = {**dict.fromkeys(_ALWAYS), **document["metrics"]}
        emit(document)
        return
    print(answer(record))
    print(f"{record.cell.title}, |T|={record.cell.num_text:,}")
    print(f"{record.source} on {record.device}: {record.status}")
    rows = [
        (METRICS[name].label, amount(value, METRICS[name].unit), METRICS[name].convention)
        for name, value in record.metrics.items()
    ]
    if rows:
        table(("metric", "value", "convention"), rows)
    _parts(record.details.get("parts", {}))
    for flag in record.flags:
        print(f"flag  {flag}")
    states = record.details.get("states", {})
    if "difference" in states:
        print(f"states  {states['difference']}")
