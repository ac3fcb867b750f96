"""The program's way in: an interrupt is one line from the first moment on.

Importing the command line takes some tenths of a second, in which Python would answer an interrupt
with a traceback.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""The exit code of a program that was interrupted: 128 and SIGINT's number."""


INTERRUPTED_LINE = "interrupted; to go on, give the same command again"


def main() -> None:
    """Run the program."""
    answer_interrupts()
    _open_closed()
    try:
        os.getcwd()
    except OSError as error:
        print(f"workbench: the current folder: {error.strerror}; change to one", file=sys.stderr)
        raise SystemExit(2) from None
    from workbench.cli import main as run

    run()


def answer_interrupts() -> None:
    """From here on an interrupt ends the process with its line and its exit code, at once."""
    # Who is started with interrupts ignored, as by nohup, goes on ignoring them.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _open_closed() -> None:
    """Open what the caller closed of standard input, output and error on the null device.

    Else the next file that is opened, a store, takes the descriptor and what is printed to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def raise_interrupts() -> None:
    """From here on an interrupt is KeyboardInterrupt again, for commands that end work first."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Nothing has begun that would have to be ended."""
    if os.environ.get("LOCAL_RANK", "0") == "0":  # Of the ranks of a machine one says it.
        os.write(2, f"workbench: {INTERRUPTED_LINE}\n".encode())
    os._exit(INTERRUPTED)
