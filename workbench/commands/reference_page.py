"""The tables of docs/ that say what the code says: options, devices, metrics, exported columns.

``python -m workbench.commands.reference_page docs`` writes them anew; a test holds them together.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from workbench.commands.options import cell_options
from workbench.vocabulary.cell import DESCRIPTIONS, FIELDS
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.metrics import METRICS

Rows = Callable[[], Iterable[tuple[str, ...]]]


def _options() -> Iterator[tuple[str, ...]]:
    for name, option in cell_options().items():
        help_ = DESCRIPTIONS[name].help if name in DESCRIPTIONS else option.help
        yield f"`{option.flag}`", _default(name, option.default), help_.replace("|", r"\|")


def _default(name: str, default: str | bool | None) -> str:
    if default is None:
        return ""
    if default is False:
        return "off"
    field = FIELDS.get(name)
    own = field is not None and isinstance(field.get_default(), str)
    return f"`{default}`" if own else str(default)


def _devices() -> Iterator[tuple[str, ...]]:
    for name, device in DEVICES.items():
        if device.capacity_bytes is None:
            yield f"`{name}`", *["of the machine"] * 3
        else:
            yield (
                f"`{name}`",
                f"{(device.peak('bfloat16') or 0) / 1e12:.1f} TFLOP/s",
                f"{(device.bandwidth_bytes_per_s or 0) / 1e12:.2f} TB/s",
                f"{device.capacity_bytes / 2**30:.2f} GiB",
            )


def _metrics() -> Iterator[tuple[str, ...]]:
    for name, metric in METRICS.items():
        yield f"`{name}`", metric.unit, metric.convention


TABLES: dict[str, Rows] = {
    "Options of a cell": _options,
    "Devices": _devices,
    "Metrics": _metrics,
}
"""The tables of docs/reference.md by the heading that they stand under."""


def reference(text: str) -> str:
    """docs/reference.md with its tables as the code has them."""
    for heading, rows in TABLES.items():
        body = "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows())
        table = re.compile(rf"(^## {heading}\n(?:(?!^## ).*\n)*?\|[-|]+\|\n)(?:\|.*\n)*", re.M)
        match = table.search(text)
        if match is None:
            raise ValueError(f"no table under '## {heading}'")
        text = text[: match.end(1)] + body + text[match.end() :]
    return text


def schema(text: str) -> str:
    """docs/schema.md with the columns of a cell as an export has them."""
    columns = ", ".join(f"`{name}`" for name in FIELDS)
    pattern = r"(then the\s+cell: ).*?(; then `duration_s`)"
    text, count = re.subn(pattern, rf"\1{columns}\2", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError("no columns of a cell")
    return text


PAGES = {"reference.md": reference, "schema.md": schema}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, fill in PAGES.items():
        page = folder / name
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
