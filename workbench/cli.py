"""The ``workbench`` program: commands by name, and the exit code of each kind of failure."""

import atexit
import gc
import os
import sys
from typing import NoReturn

import typer

from workbench.commands import cells, machine, stores, sweeps
from workbench.commands.ask import ask
from workbench.commands.calibrate import calibrate
from workbench.commands.compare import compare
from workbench.commands.jobs import jobs
from workbench.commands.limits import limit
from workbench.commands.tokens import tokens
from workbench.commands.validate import validate
from workbench.errors import Failure, RequestError

EPILOG = "Exit codes: 0 done; 1 the work failed; 2 the request was wrong."

app = typer.Typer(
    name="workbench",
    help="What does a visual token cost? Measure, predict, keep, report.",
    epilog=EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(sweeps.sweep)
app.command()(jobs)
app.command()(cells.measure)
app.command()(cells.predict)
app.command()(limit)
app.command()(ask)
app.command()(stores.report)
app.command()(stores.dashboard)
app.command()(stores.export)
app.command()(stores.merge)
app.command()(compare)
app.command(name="list")(machine.list_)
app.command()(calibrate)
app.command()(validate)
app.command()(tokens)
app.command()(machine.doctor)


def main(arguments: list[str] | None = None) -> None:
    """Run the program, or with ``arguments`` one command of it inside another program."""
    if arguments is not None:
        _run(arguments)
        return
    code: int | str | None = 0
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
    """A user's mistake is one line on standard error and exit 2."""
    try:
        app(arguments)
    except RequestError as error:
        _leave(2, str(error))
    except Failure as error:
        _leave(1, str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "workbench":
            raise
        _leave(1, f"{error.name} is not installed; 'workbench doctor' says what mends it")
    except KeyboardInterrupt:
        _leave(130, "interrupted")


def _leave(code: int, message: str) -> NoReturn:
    from workbench.probe.machine.launch import launched

    launch = launched()
    # Every rank of a machine finds the same mistake.
    if launch is None or launch.local_rank == 0:
        print(f"workbench: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
