"""Reading what a program wrote to a terminal."""

import errno
import os


def written(terminal: int) -> str:
    """All that was written to a terminal whose other end is closed; closes this end.

    One read may return a part of it: the kernel hands over what was written when it has time.
    """
    parts = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError as error:
        # Linux's word for the end of a terminal whose other end is closed.
        if error.errno != errno.EIO:
            raise
    os.close(terminal)
    return b"".join(parts).decode()
