"""What commands print: results on standard output, everything else on standard error."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any

from workbench.commands.answer import answer

if TYPE_CHECKING:
    from workbench.vocabulary.record import Record

NARROWEST = 6
"""Characters of a column that gives way."""
_NUMBER = re.compile(r"[-+]?[\d.,]+ ?\S{0,8}")
# Metrics that every result names, with null where it has none.
_ALWAYS = ("flops", "flops_causal", "model_flops", "params", "peak_bytes", "time_s")


def note(line: str) -> None:
    """A line for people, on standard error."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def waiting(words: str) -> Iterator[None]:
    """``words`` on standard error, where that is a terminal, until what takes seconds is done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(words):
        yield


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error, where that is a terminal; it is told words, done and total."""
    if not sys.stderr.isatty():
        yield lambda words, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = BarColumn(bar_width=24), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        row = progress.add_task("", total=1)

        def tell(words: str, done: int, total: int) -> None:
            progress.update(row, description=words, completed=done, total=total)

        yield tell


def program() -> str:
    """How this program was called, for commands that can be pasted."""
    return sys.argv[0] if Path(sys.argv[0]).name == "workbench" else "workbench"


def emit(document: Any) -> None:
    """The one JSON document of a command."""
    print(json.dumps(document, ensure_ascii=False))


def columns() -> int | None:
    """How wide a line of a terminal may be, COLUMNS before what it says itself; None in a pipe.

    What other programs read is never folded: COLUMNS is inherited from terminals further up.
    """
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def say(line: str, indent: int = 2) -> None:
    """A sentence for people, folded between words where it is longer than a line may be."""
    most = columns()
    form: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    print(line if most is None else fill(line, most, subsequent_indent=" " * indent, **form))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns with a heading; where lines are bounded, cells are folded within them."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    cells = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in cells]
    most = columns()
    if most is not None:
        widths = fitted(widths, [max(map(_whole, column)) for column in cells], most)
    form = "  ".join(f"{{:<{width}}}" for width in widths)
    for line in lines:
        folded = [_folded(word, width) for word, width in zip(line, widths, strict=True)]
        for row in zip_longest(*folded, fillvalue=""):
            print(form.format(*row).rstrip())


def _folded(word: str, width: int) -> list[str]:
    """The lines of a cell; what fits as it is takes no time."""
    fits = len(word) <= width and word.isprintable()
    return [word] if fits and word else wrap(word, width)


def _whole(cell: str) -> int:
    """Characters of a cell's longest piece that stays whole: a word, or a number with its unit."""
    return len(cell) if _NUMBER.fullmatch(cell) else max(map(len, cell.split()), default=0)


def fitted(widths: Sequence[int], whole: Sequence[int], most: int) -> list[int]:
    """Widths of columns, two apart, within ``most``: the widest give way first.

    They keep what should stay ``whole``, as far as that can be; none is narrower than 6.
    """
    fitting = list(widths)
    for least in (whole, [NARROWEST] * len(fitting)):
        while sum(fitting) + 2 * (len(fitting) - 1) > most:
            giving = [i for i, width in enumerate(fitting) if width > max(least[i], NARROWEST)]
            if not giving:
                break
            fitting[max(giving, key=lambda i: fitting[i])] -= 1
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
    from workbench.vocabulary.metrics import METRICS

    names = ("params", "flops", "time_s", "forward_s", "backward_s")
    metrics = {
        name: METRICS[name] for name in names if any(name in part for part in parts.values())
    }
    print()
    table(
        ("component", *(metric.label for metric in metrics.values())),
        (
            (part, *(amount(costs.get(name), metric.unit) for name, metric in metrics.items()))
            for part, costs in parts.items()
        ),
    )
    print()


def _pictures(facts: list[dict[str, Any]]) -> None:
    """What was shown, file by file or once for all of one size, and under which limits."""
    from workbench.commands.limit_options import limits_words
    from workbench.vocabulary.units import plural

    for fact in facts:
        size = f"{fact['width']}x{fact['height']}"
        count = fact.get("count", 1)
        frames = fact.get("frames")
        what = plural(count, "image") if frames is None else plural(frames, "frame")
        each = " each" if count > 1 else ""
        name = f"{fact['file']}: " if "file" in fact else ""
        say(f"{name}{what} of {size}, {fact['tokens']:,} visual tokens{each}")
    for line in dict.fromkeys(limits_words(fact) for fact in facts):
        say(f"limits: {line}")
    for note in dict.fromkeys(note for fact in facts for note in fact.get("notes", ())):
        say(f"note: {note}")


def record(record: "Record", as_json: bool) -> None:
    """One result, as the contract's document or as a table."""
    from workbench.vocabulary.metrics import METRICS

    if as_json:
        document = record.document()
        document["metrics"] = {**dict.fromkeys(_ALWAYS), **document["metrics"]}
        emit(document)
        return
    say(answer(record))
    say(f"{record.cell.title}, |T|={record.cell.num_text:,}")
    _pictures(record.details.get("pictures", []))
    print(f"{record.source} on {record.device}: {record.status}")
    rows = [
        (METRICS[name].label, amount(value, METRICS[name].unit), METRICS[name].convention)
        for name, value in record.metrics.items()
    ]
    if rows:
        table(("metric", "value", "convention"), rows)
    _parts(record.details.get("parts", {}))
    for flag in record.flags:
        say(f"flag  {flag}")
    states = record.details.get("states", {})
    if "difference" in states:
        say(f"states  {states['difference']}")
