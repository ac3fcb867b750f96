"""Store to the contents of a report: plain strings and figures, which the templates lay out."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from workbench import aspects
from workbench.figures import in_order
from workbench.inputs.yaml_text import write_yaml
from workbench.report.chapters.appendix import (
    conventions_chapter,
    endings_chapter,
    environment_table,
)
from workbench.report.chapters.paper import paper_chapter
from workbench.report.chapters.threats import threats_chapter
from workbench.report.command import calibration_asked, repeat, sweep_of
from workbench.report.first import first_page
from workbench.report.question import QUESTIONS, Answer
from workbench.store import RunInfo
from workbench.store.notes import OUT_OF_MINUTES
from workbench.telling import words
from workbench.telling.material import Material, NothingToReport, Subject, gather
from workbench.telling.page import Contents, FirstPage, Section, Table
from workbench.telling.sentences import answers
from workbench.telling.text import apart
from workbench.telling.view import identities
from workbench.vocabulary.errors import Faults
from workbench.vocabulary.units import plural

__all__ = ["DEFAULT_QUESTION", "NothingToReport", "contents"]

DEFAULT_QUESTION = "dattn-vs-sattn"


def contents(
    path: Path,
    question: str = DEFAULT_QUESTION,
    against: Path | None = None,
    note: str = "",
    case: Table | None = None,
    options: Sequence[str] = (),
) -> Contents:
    """Everything a report says. Raises NothingToReport, RequestError or StoreError.

    ``against`` is the earlier store of a question about two, ``note`` the author's own words in
    Markdown, ``case`` what the reader's own case costs. ``options`` are the words of the command
    line that ask for the case, and whatever else a command has to repeat beside the question.
    """
    check_question(question, against, bool(note) or case is not None)
    words = QUESTIONS[question]
    material = gather(path, words.keep, words.fill, against)
    endings = endings_chapter(material)
    specs, rates, commands = _again(material)
    answer, headline = words.answer(material), words.headline(material)
    headline = headline and without_source(headline)
    front = None if words.front is None else words.front(material)
    first = None if words.two_stores else first_page(material, note, case, front)
    if first is not None and question != DEFAULT_QUESTION:
        first = _answering(first, answer)
    return Contents(
        question=question,
        title=words.title,
        answer=answer,
        provenance=_provenance(material),
        headline=headline,
        sections=(
            *words.chapters(material),
            *(_subject(material, subject) for subject in material.spoken),
            paper_chapter(material),
            threats_chapter(material),
            *([endings] if endings else []),
            conventions_chapter(material),
        ),
        method=method_page(),
        reproduce=_commands(question, against, rates, commands, options),
        versions=environment_table(material),
        specs=specs,
        stores=(path,) if against is None else (path, against),
        first=first,
        records=material.details.read,
    )


def check_question(question: str, against: Path | None, has_words: bool) -> None:
    """Raise RequestError for a question that there is not, or that cannot be asked so.

    ``has_words``: with a note or a case for the first page.
    """
    words = QUESTIONS[question]
    faults = Faults()
    if words.two_stores and against is None:
        faults.add(f"question {question}: compares two stores; name the earlier one")
    if against is not None and not words.two_stores:
        faults.add(f"question {question}: is about one store; leave {against} out")
    if words.two_stores and has_words:
        faults.add(f"question {question}: has no first page for a case or a note")
    faults.raise_all()


def _answering(page: FirstPage, answer: Answer) -> FirstPage:
    """The page in front with the answer of a question of its own.

    What all sentences are of stands once.
    """
    first, basis = apart(answer[0])
    more = [apart(sentence) for sentence in answer[1:]]
    # Another sentence may have fewer marks: what it is of begins alike.
    short = [words if of and basis.startswith(of) else "" for words, of in more]
    return replace(
        page,
        answer=first,
        basis=basis,
        heading="More of the answer",
        recommendation=tuple(a or b for a, b in zip(short, answer[1:], strict=True)),
    )


def without_source(table: Table) -> Table:
    """The table with its only source in its note: a column that says one thing takes the room of
    those that do not.
    """
    if "source" not in table.columns:
        return table
    place = table.columns.index("source")
    sources = {row[place] for row in table.rows}
    if len(sources) != 1:
        return table
    (source,) = sources
    columns, *rows = ((*row[:place], *row[place + 1 :]) for row in (table.columns, *table.rows))
    note = f"All {source}. {table.note}".strip()
    return replace(table, columns=columns, rows=tuple(rows), note=note)


def _subject(material: Material, subject: Subject) -> Section:
    return Section(
        subject.title,
        subject.slug,
        tuple(each.block(material, subject) for _, each in aspects.in_order()),
        tuple(answers(subject.rows, subject.pairs)),
    )


def _provenance(material: Material) -> tuple[str, ...]:
    frame = material.frame
    systems = words.listed(in_order(frame))
    whole, count = material.num_cells, len(frame)
    part = "" if whole == count else f", of which {count:,} bear on the question"
    first = (
        f"{material.path.name} holds {plural(whole, 'cell')}{part}, of"
        f" {plural(frame['series'].nunique(), 'system')} ({systems}):"
        f" {words.endings(frame)}."
    )
    sources = set(frame["source"].unique())
    missing = []
    if "measured" not in sources:
        missing.append(
            "Nothing here was measured: every number is a prediction from shapes and"
            " datasheet peaks."
        )
    if "predicted" not in sources:
        missing.append(
            "Nothing here was predicted: there are no figures for a device that was not at hand."
        )
    missing += _dropped(material)
    used = frame["run"].nunique()
    if used > 1:
        missing.append(
            f"The cells come from {used} runs; where two hold the same cell the newer"
            " counts. Their environments are listed below."
        )
    return (first, *missing)


def _dropped(material: Material) -> Iterator[str]:
    """What the minutes of the sweeps had no room for, as their runs say."""
    names = {run.id: run.sweep for run in material.runs}
    for (run, *cell), note in material.notes.items():
        if any(cell) or OUT_OF_MINUTES not in note.tags or run not in names:
            continue
        for line in note.text.splitlines():
            if line.startswith(f"{OUT_OF_MINUTES}: "):
                words = line.removeprefix(f"{OUT_OF_MINUTES}: ")
                yield f"Sweep {names[run]} is not whole: its {words}."


def _again(
    material: Material,
) -> tuple[dict[str, str], dict[str, tuple[str, ...]], tuple[str, ...]]:
    """What repeats every run: file name to sweep, and to the files of calibrations that it was
    made with; and the commands of cells that show files.

    A run that no sweep made is repeated by a sweep over its cells.
    """
    specs: dict[str, str] = {}
    rates: dict[str, tuple[str, ...]] = {}
    commands: list[str] = []
    frame = material.frame
    for run in material.runs:
        if not run.num_records:
            continue
        name = f"{len(specs) + 1:02d}-{_safe(run.id)}.yaml"
        if _is_sweep(run):
            specs[name], rates[name] = _spec(run), _calibrations(material, run)
            continue
        records = material.details.some(identities(frame[frame["run"] == run.id])).values()
        spec = sweep_of(run.sweep or "again", records)
        if spec["grids"]:
            specs[name], rates[name] = write_yaml(spec), ()
        commands += [repeat(record) for record in records if record.details.get("pictures")]
    return specs, rates, tuple(commands)


def _calibrations(material: Material, run: RunInfo) -> tuple[str, ...]:
    """The files of calibrations that a sweep was asked to predict with, one a device."""
    if not getattr(run.environment, "calibrations", None):
        return ()
    frame = material.frame
    rows = frame[(frame["run"] == run.id) & (frame["source"] == "predicted")]
    records = material.details.some(identities(rows.drop_duplicates("device"))).values()
    files = map(calibration_asked, records)
    return tuple(dict.fromkeys(file for file in files if file is not None))


def _commands(
    question: str,
    against: Path | None,
    specs: Mapping[str, Sequence[str]],
    commands: Sequence[str],
    options: Sequence[str],
) -> tuple[tuple[str, str], ...]:
    many = len(specs) > 1
    repeats = [
        (
            f"repeat sweep {number} of {len(specs)}" if many else "repeat the sweep",
            shlex.join(["workbench", "sweep", f"data/{name}", "--store", "again.db", *rates]),
        )
        for number, (name, files) in enumerate(specs.items(), 1)
        for rates in [[word for file in files for word in ("--calibration", file)]]
    ]
    repeats += [("repeat a cell, in the folder of the files that it shows", c) for c in commands]
    option = [] if question == DEFAULT_QUESTION else ["--question", question]
    # The name of a file from outside has no place in a command that is to be pasted.
    earlier = [] if against is None else ["--against", "EARLIER.db"]
    words = ["workbench", "report", "again.db", *option, *earlier, *options, "-o", "again"]
    return (*repeats, ("write the report", shlex.join(words)))


def method_page() -> str:
    """docs/method.md: it travels with the package, and in a checkout it is the file itself.

    Its links to other pages are left out, for they do not travel with a report.
    """
    packaged = files("workbench.report").joinpath("method.md")
    checkout = Path(__file__).resolve().parents[2] / "docs" / "method.md"
    page = (packaged if packaged.is_file() else checkout).read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]*)\]\([\w./-]+\.md(?:#[\w-]*)?\)", r"\1", page)


def _safe(name: str) -> str:
    """A name from a store as part of a file's name and of a shell command."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]


def _is_sweep(run: RunInfo) -> bool:
    """Whether a run is a sweep's, and no search for a threshold, nor cells that were kept."""
    return isinstance(run.spec, dict) and "grids" in run.spec


def _spec(run: RunInfo) -> str:
    return write_yaml(run.spec)
