"""The ``workbench`` program: commands by name, and the exit code of each kind of failure."""

import atexit
import errno
import gc
import io
import os
import resource
import sys
import time
from typing import Annotated, NoReturn

import typer

from workbench import __version__
from workbench.commands import cells, machine, process, stores, sweeps
from workbench.commands.ask import ask
from workbench.commands.calibrate import calibrate
from workbench.commands.compare import compare
from workbench.commands.compare_systems import compare_systems
from workbench.commands.jobs import jobs
from workbench.commands.limits import limit
from workbench.commands.options import give_all_options, give_options
from workbench.commands.schema import schema
from workbench.commands.tokens import tokens
from workbench.commands.usage import USAGE, refused
from workbench.commands.validate import validate
from workbench.inputs.files import shown
from workbench.start import INTERRUPTED, INTERRUPTED_LINE, raise_interrupts
from workbench.vocabulary.errors import Failure, RequestError, Unsupported

SPEAKS_FIRST_S = 2.0
EPILOG = (
    "Exit codes: 0 done; 1 the work failed; 2 the request was wrong. "
    "Also 3: sweep --max-minutes left cells; 130: interrupted."
)

app = typer.Typer(
    name="workbench",
    epilog=EPILOG,
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"workbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """What does a visual token cost? Measure, predict, keep, report."""


app.command(short_help="Measure and predict every cell of a probe.")(sweeps.sweep)
app.command(short_help="List the Slurm jobs of sweeps, or print a job's log.")(jobs)
app.command(short_help="Measure one cell on this machine.")(cells.measure)
app.command(short_help="Predict one cell: FLOPs, peak memory, seconds.")(cells.predict)
app.command(short_help="Find the largest |V|, batch or video that fits.")(limit)
app.command(short_help="Answer many questions in one process, for programs.")(ask)
app.command(short_help="Write a store as HTML, Markdown, PDF and slides.")(stores.report)
app.command(short_help="Open the dashboard over a store, on this machine.")(stores.dashboard)
app.command(short_help="Write a store as CSV, Parquet and JSON files.")(stores.export)
app.command(short_help="Unite several stores in one.")(stores.merge)
app.command(short_help="Compare two runs cell by cell.")(compare)
app.command("compare-systems", short_help="Compare all attention systems on one card.")(
    compare_systems
)
app.command("list", short_help="List models, systems, kernels, devices, metrics, runs.")(
    machine.list_
)
app.command(short_help="Fit what a device reaches to measured records.")(calibrate)
app.command(short_help="Say how far predictions are from measured records.")(validate)
app.command(short_help="Count the visual tokens of images or of a video.")(tokens)
app.command(short_help="Print the JSON Schema of a YAML sweep, for editors.")(schema)
app.command(short_help="Say what this machine has and what it lacks.")(machine.doctor)


def main(arguments: list[str] | None = None) -> None:
    """Run the program, or with ``arguments`` one command of it inside another program."""
    if arguments is not None:
        _run(arguments)
        return
    code: int | str | None = 0
    process.is_program = True
    # A name that is no UTF-8 is shown as JSON escapes it, not a reason to fail.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Imports make a million objects that stay; looking through them is a tenth of a start.
    gc.set_threshold(100_000)
    try:
        _run(None)
    except SystemExit as leaving:
        code = leaving.code
    if "torch" in sys.modules and not isinstance(code, str):
        # Taking torch's modules apart takes a second, as long as a prediction; nothing needs it.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    raise SystemExit(code)


def _run(arguments: list[str] | None) -> None:
    """A user's mistakes are a line each on standard error, and exit 2."""
    try:
        raise_interrupts()
        if "_WORKBENCH_COMPLETE" in os.environ:
            give_all_options()
        give_options(sys.argv[1:] if arguments is None else arguments)
        code = app(arguments, prog_name="workbench", standalone_mode=False)
        sys.stdout.flush()
    except USAGE as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            raise SystemExit(2) from None
        words = sys.argv[1:] if arguments is None else arguments
        _leave(2, *refused(typer.main.get_command(app), error, list(words)))
    except RequestError as error:
        _leave(2, *error.faults)
    except Unsupported as error:
        _leave(2, str(error))  # Where there is no record to hold the status, it is a refusal.
    except Failure as error:
        _leave(1, str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "workbench":
            raise
        _leave(1, f"{error.name} is not installed; 'workbench doctor' says what mends it")
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            if error.filename is None:
                if error.errno not in (errno.ENOSPC, errno.EPIPE):
                    raise
                # What is left in the buffer has nowhere to go, and Python would try once more.
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                _leave(1, f"standard output: {error.strerror}")
            # A file that a request names and that the system refuses, wherever it was met.
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
            _leave(1 if full else 2, f"{shown(os.fsdecode(error.filename))}: {error.strerror}")
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        _leave(1, f"{error.strerror}: this process may have {most}; raise it with 'ulimit -n'")
    except KeyboardInterrupt:
        code = INTERRUPTED
    # So typer hands on what a command asked to exit with, and what an interrupt ends in.
    if code == INTERRUPTED:
        _leave(INTERRUPTED, INTERRUPTED_LINE)
    if isinstance(code, int) and code:
        raise SystemExit(code)


def _leave(code: int, *messages: str) -> NoReturn:
    """End with ``code``; each message is a line on standard error."""
    launch = None
    if "LOCAL_RANK" in os.environ:  # A launcher started this process; else nothing is imported.
        from workbench.probe.machine.launch import launched

        launch = launched()
    if launch is None or launch.local_rank == 0:
        for message in messages:
            print(f"workbench: {' '.join(message.split())}", file=sys.stderr)
    else:
        # Every rank of a machine finds the same mistake, and the launcher ends all once one left.
        time.sleep(SPEAKS_FIRST_S)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
