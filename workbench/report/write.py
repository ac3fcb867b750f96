"""Contents to files."""

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from workbench.errors import RequestError
from workbench.report.contents import Contents, Section, Table, contents
from workbench.report.images import HINT, browser, write_pngs
from workbench.report.text import markdown


@dataclass(frozen=True)
class ReportFiles:
    """What was written, and what could not be, one line each."""

    html: Path
    markdown: Path
    figures: tuple[Path, ...]
    specs: tuple[Path, ...]
    notes: tuple[str, ...]


class Raw(str):
    """Text that is Markdown already."""


def write_report(
    store_path: str | Path, folder: str | Path, static_images: bool = True
) -> ReportFiles:
    """Write ``report.html``, ``report.md``, ``figures/*.png`` and the specs to ``folder``.

    Raises NothingToReport where the store has nothing to say, RequestError for a store that cannot
    be read or a folder that cannot be made. Two reports of one store differ only in their stamp.
    """
    found = contents(Path(store_path))
    target = Path(folder)
    try:
        (target / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"folder {str(target)!r}: {error.strerror}") from None
    chromium = browser() if static_images else None
    notes = (HINT,) if static_images and chromium is None else ()
    pictures = {s.slug: target / "figures" / f"{s.slug}.png" for s in found.sections}
    if chromium is not None:
        write_pngs({pictures[s.slug]: s.figure for s in found.sections}, chromium)
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    page, text = target / "report.html", target / "report.md"
    page.write_text(html(found, stamp, notes), encoding="utf-8")
    text.write_text(
        markdown_text(found, stamp, notes, with_figures=chromium is not None), encoding="utf-8"
    )
    specs = []
    for name, body in found.specs.items():
        (target / name).write_text(body, encoding="utf-8")
        specs.append(target / name)
    drawn = tuple(pictures.values()) if chromium is not None else ()
    return ReportFiles(page, text, drawn, tuple(specs), notes)


def _untitled(table: Table) -> Table:
    """A table whose title is the heading above it already."""
    return replace(table, title="")


def _templates() -> PackageLoader:
    return PackageLoader("workbench.report")


def html(found: Contents, stamp: str, notes: tuple[str, ...] = ()) -> str:
    """The page: everything inline, and a policy that lets only its own scripts run."""
    library = _script(get_plotlyjs())
    figures = _script(_drawing(found.sections))
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in (library, figures))
    environment = Environment(loader=_templates(), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    environment.globals["untitled"] = _untitled
    return environment.get_template("report.html.j2").render(
        report=found, stamp=stamp, notes=notes, library=library, figures=figures, hashes=hashes,
    )  # fmt: skip


def markdown_text(
    found: Contents, stamp: str, notes: tuple[str, ...] = (), with_figures: bool = True
) -> str:
    """The Markdown: every expression of the template is escaped unless it says that it is raw."""

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Raw) else markdown(value)

    environment = Environment(
        loader=_templates(), autoescape=False, finalize=finalize, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["raw"] = Raw
    environment.globals["untitled"] = _untitled
    return environment.get_template("report.md.j2").render(
        report=found, stamp=stamp, notes=notes, with_figures=with_figures
    )


def _script(text: str) -> str:
    """Text that cannot end the script element it is put into."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _drawing(sections: tuple[Section, ...]) -> str:
    """The script that draws each figure in the reader's theme, and prints it light."""
    data = {
        section.slug: {
            "light": section.figure.to_plotly_json(),
            "dark": section.dark.to_plotly_json(),
        }
        for section in sections
    }
    text = json.dumps(data, cls=PlotlyJSONEncoder, separators=(",", ":"), sort_keys=True)
    # JSON inside a script: no character that HTML would read.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    script = files("workbench.report").joinpath("templates", "draw.js").read_text(encoding="utf-8")
    return f"const FIGURES = {text};\n{script}"
