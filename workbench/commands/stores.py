"""``report``, ``dashboard``, ``export``, ``merge`` and ``compare``: what is done with stores."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.commands.checks import check_store
from workbench.commands.completion import completes
from workbench.commands.faults import wrong_names
from workbench.inputs.files import read_text
from workbench.vocabulary.errors import Faults, RequestError

REPORT_FOLDER = Path("reports/latest")
MOST_NOTE = 64 * 1024
"""Bytes of a note."""
StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A store, such as workbench.db.")]


def report(
    store: StorePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder.")] = REPORT_FOLDER,
    question: Annotated[
        str,
        typer.Option(
            help="dattn-vs-sattn, will-it-fit, kernel-choice, himix, systems, regression.",
            autocompletion=completes("question"),
        ),
    ] = "dattn-vs-sattn",
    against: Annotated[
        Path | None, typer.Option(metavar="STORE", help="The earlier store of a regression.")
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE,…",
            help="Your own case, predicted: model, visual or images and frames, resolution, fps,"
            " text, steps, gpus, price, device.",
        ),
    ] = None,
    note: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Your own words on the first page.")
    ] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="No PNG, SVG, PDF and PPTX files.")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Write a store as HTML, Markdown, PDF and slides, with its data and how to repeat it."""
    with show.bar() as tell:
        tell("reading the store", 0, 1)
        from workbench.report import write_report
        from workbench.report.case import read_case
        from workbench.report.case_table import case_table
        from workbench.report.contents import check_question

        faults, own_words, own_case, costs = Faults(), "", None, None
        with faults:
            check_question(question, against, note is not None or case is not None)
        for path in filter(None, (store, against)):
            with faults:
                check_store(path)
        with faults:
            own_words = "" if note is None else read_text(note, "note", MOST_NOTE)
        with faults:
            own_case = None if case is None else read_case(case, _wrong_names)
        faults.raise_all()
        if own_case is not None:
            from workbench.commands.case import answer_case

            tell("predicting your case", 0, 1)
            costs = case_table(own_case, answer_case(own_case))
        files = write_report(
            store,
            output,
            static_images=not no_images,
            question=question,
            against=against,
            note=own_words,
            case=costs,
            case_text=case or "",
            tell=tell,
        )
    for line in files.notes:
        show.note(line)
    if json_:
        show.emit(
            {
                "answer": files.answer,
                "html": str(files.html),
                "markdown": str(files.markdown),
                "pdf": None if files.pdf is None else str(files.pdf),
                "slides": None if files.slides is None else str(files.slides),
                "data": [str(path) for path in files.data],
                "reproduce": str(files.reproduce),
                "figures": [str(path) for path in files.figures],
                "specs": [str(path) for path in files.specs],
                "notes": list(files.notes),
            }
        )
    else:
        show.say(files.answer)
        print(f"report:     {files.html}")


def _wrong_names(model: str, device: str) -> list[str]:
    """What is wrong with the names of a case."""
    return wrong_names([{"model": model}], [("predicted", device)])


def dashboard(
    store: StorePath,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on 127.0.0.1.")] = 8501,
) -> None:
    """Open the dashboard over a store, on this machine only."""
    check_store(store)  # One that cannot be read is refused here, not in the browser.
    app = Path(__file__).resolve().parent.parent.parent / "app.py"
    if not app.is_file():
        raise RequestError(f"dashboard: {app} is missing; run it from a checkout of the project")
    command = [
        sys.executable,
        "-m",
        "workbench.serve",
        "run",
        str(app),
        "--server.address=127.0.0.1",
        f"--server.port={port}",
        "--server.headless=true",
        "--browser.gatherUsageStats=false",
        "--",
        str(store),
    ]
    if sys.stderr.isatty():
        show.note(f"dashboard: starting, at http://127.0.0.1:{port}")
    # In place of this process, so that a signal meets the dashboard itself.
    os.execv(sys.executable, command)


def export(
    store: Annotated[Path | None, typer.Argument(metavar="STORE", help="A store.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The folder, or the file of --deepspeed-config."),
    ] = None,
    deepspeed_config: Annotated[
        str | None,
        typer.Option(
            metavar="CELL",
            help="A key in STORE, or a file of a cell: its deepspeed configuration.",
        ),
    ] = None,
    inert: Annotated[
        bool,
        typer.Option("--inert", help="CSV for a spreadsheet: no text in it runs as a formula."),
    ] = False,
    json_: AsJson = False,
) -> None:
    """Write a store as CSV, Parquet and JSON files, or a cell as deepspeed's configuration."""
    if deepspeed_config is not None:
        from workbench.commands.deepspeed import write_config

        text = write_config(deepspeed_config, store, output)
        if text is not None:
            print(text, end="")
        elif json_:
            show.emit({"files": [str(output)], "notes": []})
        else:
            print(output)
        return
    if store is None or output is None:
        raise RequestError("export: needs STORE and -o DIR, or --deepspeed-config CELL")
    from workbench.store.export import export as write_tables

    files = write_tables(store, output, inert)
    for line in files.notes:
        show.note(line)
    if json_:
        show.emit({"files": [str(path) for path in files.files], "notes": files.notes})
    else:
        for path in files.files:
            print(path)


def merge(
    stores: Annotated[
        list[Path], typer.Argument(metavar="STORE...", help="Stores, damaged ones too.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The store of them all.")],
    json_: AsJson = False,
) -> None:
    """Unite several stores in one; of a damaged one whatever can be read."""
    from workbench.store.merge import merge as unite

    merged = unite(stores, output)
    for line in merged.notes:
        show.note(line)
    if json_:
        show.emit({**merged._asdict(), "out": str(merged.out)})
    else:
        amount = f"{merged.num_added:,} added"
        print(f"{merged.out}: {merged.num_runs} runs, {merged.num_records:,} records ({amount})")
