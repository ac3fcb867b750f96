"""What commands print: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.record import Record

Steps = tuple[tuple[float, str], ...]
# Metrics that every result names, with null where it has none.
_ALWAYS = ("flops", "flops_causal", "model_flops", "params", "peak_bytes", "time_s")
_DECIMAL: Steps = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""),
            (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))  # fmt: skip
_BINARY: Steps = ((2.0**40, "Ti"), (2.0**30, "Gi"), (2.0**20, "Mi"), (2.0**10, "Ki"), (1.0, ""))


def note(line: str) -> None:
    """A line for people, on standard error."""
    print(line, file=sys.stderr, flush=True)


def program() -> str:
    """How this program was called, for commands that can be pasted."""
    return sys.argv[0] if Path(sys.argv[0]).name == "workbench" else "workbench"


def emit(document: Any) -> None:
    """The one JSON document of a command."""
    print(json.dumps(document, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns with a heading."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def amount(value: float | None, unit: str) -> str:
    """A metric's value with a prefix that suits it: ``3.61 TFLOP``, ``1.20 GiB``, ``12.3 ms``."""
    if value is None:
        return "n/a"
    if unit == "1":
        return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    steps = _BINARY if unit == "B" else _DECIMAL
    if unit == "s":
        steps = tuple(step for step in steps if step[0] <= 1)  # nobody counts kiloseconds
    factor, prefix = next((s for s in steps if abs(value) >= s[0]), steps[-1])
    return f"{value / factor:.4g} {prefix}{unit}" if value else f"0 {unit}"


def record(found: "Record", as_json: bool) -> None:
    """One result, as the contract's document or as a table."""
    from workbench.record import METRICS

    if as_json:
        document = found.document()
        document["metrics"] = {**dict.fromkeys(_ALWAYS), **document["metrics"]}
        emit(document)
        return
    print(f"{found.cell.title}, |T|={found.cell.num_text:,}")
    print(f"{found.source} on {found.device}: {found.status}")
    rows = [
        (METRICS[name].label, amount(value, METRICS[name].unit), METRICS[name].convention)
        for name, value in found.metrics.items()
    ]
    if rows:
        table(("metric", "value", "convention"), rows)
    for flag in found.flags:
        print(f"flag  {flag}")
