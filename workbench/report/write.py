"""Contents to files."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from workbench.collector import without_collector
from workbench.report.bundle import NOTE, reproduce_text, write_bundle
from workbench.report.contents import DEFAULT_QUESTION, contents
from workbench.report.glossary import GLOSSARY
from workbench.report.images import HINT, MOST, NotDrawn, browser, write_images
from workbench.report.library import plotly_js
from workbench.report.own_words import as_markdown, paragraphs, reader
from workbench.report.pdf import HINT as PDF_HINT
from workbench.report.pdf import write_pdf
from workbench.report.script import digest, drawing, inert
from workbench.report.slides import HINT as SLIDES_HINT
from workbench.report.slides import write_slides
from workbench.store import Store
from workbench.telling.page import Contents, Table
from workbench.telling.text import markdown, unbroken
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class ReportFiles:
    """What was written, and what could not be, one line each."""

    html: Path
    markdown: Path
    pdf: Path | None
    slides: Path | None
    figures: tuple[Path, ...]
    """PNG and SVG."""
    specs: tuple[Path, ...]
    data: tuple[Path, ...]
    reproduce: Path
    notes: tuple[str, ...]
    answer: str
    """The sentence that the report begins with."""


Tell = Callable[[str, int, int], None]
"""Hears what is done next, and how much of how much is done."""
READING, WRITING = 6, 4
"""What it takes to read a store, and to write each kind of file, in figures."""


class Raw(str):
    """Text that is Markdown already."""


@without_collector()
def write_report(
    store_path: str | Path,
    folder: str | Path,
    static_images: bool = True,
    question: str = DEFAULT_QUESTION,
    against: str | Path | None = None,
    note: str = "",
    case: Table | None = None,
    case_text: str = "",
    tell: Tell = lambda words, done, total: None,
) -> ReportFiles:
    """Write ``report.html``, ``.md``, ``.pdf``, ``.pptx``, pictures, data and ``REPRODUCE.md``.

    Without ``static_images`` there are no pictures, no PDF and no slides, which takes a tenth of
    the time. ``case`` is what the case in ``case_text`` costs: the text is for the command that
    makes the report again, and the note lies in ``data/`` for it. ``tell`` hears what is done
    next, and how far the whole has come.
    Raises NothingToReport where the store has nothing to say, RequestError for a store that cannot
    be read or a folder that cannot be made. Two reports of one store differ only in their stamp.
    """
    earlier = None if against is None else Path(against)
    tell("reading the store", 0, 1)
    options = [*(["--note", f"data/{NOTE}"] if note else [])]
    options += ["--case", case_text] if case_text else []
    options += [] if static_images else ["--no-images"]
    report = contents(Path(store_path), question, earlier, note, case, options)
    target = Path(folder)
    try:
        for name in ("figures", "data"):
            (target / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"folder {str(target)!r}: {error.strerror}") from None
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    chromium = browser() if static_images else None
    notes = _left_out(report.stores)
    notes += [HINT] if static_images and chromium is None else []
    images = report.figures[:MOST] if chromium is not None else ()
    num_undrawn = len(report.figures) - len(images)
    if images and num_undrawn:
        notes.append(f"{num_undrawn} of {len(report.figures)} figures are in report.html only")
    total = len(images) + READING + 3 * WRITING

    def tell_figures(done: int) -> None:
        tell(f"figure {done + 1} of {len(images)}", READING + done, total)

    pictures: list[Path] = []
    if chromium is not None:
        try:
            pictures = write_images(images, target / "figures", chromium, tell_figures)
        except NotDrawn as error:
            notes, images = [*notes, str(error)], ()
    tell("data", READING + len(images), total)
    data, missing = write_bundle(report, target / "data")
    notes += missing
    tell("paper and slides", READING + len(images) + WRITING, total)
    paper = write_pdf(report, stamp, tuple(notes), target) if static_images else None
    notes += [PDF_HINT] if static_images and paper is None else []
    slides = write_slides(report, stamp, target) if static_images else None
    notes += [SLIDES_HINT] if static_images and slides is None and report.first else []
    tell("pages", READING + len(images) + 2 * WRITING, total)
    page, text = target / "report.html", target / "report.md"
    page.write_text(html(report, stamp, notes), encoding="utf-8")
    text.write_text(
        markdown_text(report, stamp, notes, {figure.slug for figure in images}), encoding="utf-8"
    )
    again = target / "REPRODUCE.md"
    again.write_text(reproduce_text(report), encoding="utf-8")
    specs = tuple(target / "data" / name for name in report.specs)
    tell("done", total, total)
    return ReportFiles(
        html=page,
        markdown=text,
        pdf=paper,
        slides=slides,
        figures=tuple(pictures),
        specs=specs,
        data=tuple(data),
        reproduce=again,
        notes=tuple(notes),
        answer=report.answer[0] if report.first is None else report.first.answer,
    )


def _left_out(stores: Sequence[Path]) -> list[str]:
    """What of very large stores the report does not look at."""
    notes = []
    for path in stores:
        with Store.open(path) as store:
            left_out = store.left_out()
        notes += [f"{path}: {left_out}"] if left_out else []
    return notes


def _templates() -> PackageLoader:
    return PackageLoader("workbench.report")


def html(report: Contents, stamp: str, notes: Sequence[str] = ()) -> str:
    """The page: everything inline, and a policy that lets only its own scripts run."""
    library = inert(plotly_js())
    figures = inert(drawing(report.figures))
    hashes = " ".join(f"'sha256-{digest(script)}'" for script in (library, figures))
    environment = Environment(
        loader=_templates(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment.get_template("report.html.j2").render(
        report=report,
        stamp=stamp,
        notes=notes,
        glossary=GLOSSARY,
        library=library,
        figures=figures,
        hashes=hashes,
        method=reader().render(report.method),
        own_words=reader().render(report.first.note if report.first else ""),
    )


def markdown_text(
    report: Contents, stamp: str, notes: Sequence[str] = (), drawn: Collection[str] = ()
) -> str:
    """The Markdown: every expression of the template is escaped unless it says that it is raw.

    ``drawn`` are the slugs of the figures that lie beside it as files.
    """

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Raw) else markdown(value)

    environment = Environment(
        loader=_templates(),
        autoescape=False,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["raw"] = Raw
    return environment.get_template("report.md.j2").render(
        report=report,
        stamp=stamp,
        notes=notes,
        drawn=drawn,
        glossary=GLOSSARY,
        method=_demoted(report.method),
        own_words=as_markdown(paragraphs(report.first.note if report.first else "")),
    )


def _demoted(page: str) -> str:
    """A Markdown page as a chapter of another: its headings one level lower."""
    inside, lines = False, []
    for line in page.splitlines():
        inside ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not inside else line)
    return "\n".join(lines)
