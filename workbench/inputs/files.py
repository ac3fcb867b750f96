"""Files from outside, read by one rule: regular, of bounded size, UTF-8, or one clear line.

A name may point at a device that never ends, at a pipe that nobody writes to, or at a document
that is small on the disk and large in memory. Every file that a request names is read here.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.units import quantity

MAX_SHOWN = 200
"""Characters of a name in a message."""
MAX_DIGITS = 100
"""Digits of an integer in JSON: counts of FLOPs have about 30."""
MAX_DEPTH = 32
"""Levels of lists and objects in one another in JSON: no document here has over a dozen."""


def shown(path: str | Path) -> str:
    """A path in a message: quoted, so that what does not print is escaped, and not too long."""
    text = repr(str(path))
    half = MAX_SHOWN // 2
    return text if len(text) <= MAX_SHOWN else f"{text[:half]}…{text[-half:]}"


def unusable(path: str | Path, what: str, error: Exception, done: str = "read") -> RequestError:
    """The one line for a path that cannot be ``done``: read or written."""
    if isinstance(error, FileNotFoundError) and done == "read":
        return RequestError(f"{what} {shown(path)}: no such file")
    reason = getattr(error, "strerror", None) or str(error)
    return RequestError(f"{what} {shown(path)}: cannot be {done}: {reason}")


def require_file(path: str | Path, what: str) -> os.stat_result:
    """The facts of a regular file, which is not opened; RequestError for anything else."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError) as error:
        raise unusable(path, what, error) from None
    _check_kind(path, what, facts)
    return facts


def read_bytes(path: str | Path, what: str, max_bytes: int) -> bytes:
    """A regular file's content; ``what`` it is begins the message where it cannot be read.

    Raises RequestError, one line, where there is no such file, it is a folder, a pipe or a device
    (none of which is waited for), or holds more than ``max_bytes``.
    """
    require_file(path, what)  # Opening some devices has effects of its own.
    try:
        # Without O_NONBLOCK a pipe is waited for until somebody opens its other end.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unusable(path, what, error) from None
    try:
        _check_kind(path, what, os.fstat(number))
        with open(number, "rb", closefd=False) as file:
            # A file may grow while it is read, or state another size than it has.
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise unusable(path, what, error) from None
    finally:
        os.close(number)
    if len(content) > max_bytes:
        most = quantity(max_bytes, "B", 3)
        raise RequestError(f"{what} {shown(path)}: too large, at most {most} are read")
    return content


def read_text(path: str | Path, what: str, max_bytes: int) -> str:
    """``read_bytes`` as text; RequestError also for what is no UTF-8."""
    try:
        return read_bytes(path, what, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{what} {shown(path)}: cannot be read as UTF-8 text: byte {error.start} is none"
        ) from None


def read_json(path: str | Path, what: str, max_bytes: int) -> Any:
    """``read_text`` as a JSON document, by the bounds of ``parse_json``."""
    return parse_json(read_text(path, what, max_bytes), f"{what} {shown(path)}")


def write_text(path: str | Path, what: str, text: str) -> None:
    """Write a file; RequestError, one line, where that is impossible or ``path`` is no file.

    A pipe is not waited for, and a device is not written to.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        if os.path.exists(path):
            _check_kind(path, what, os.stat(path), "written")
        number = os.open(path, flags, 0o666)
        with open(number, "w", encoding="utf-8") as file:
            _check_kind(path, what, os.fstat(number), "written")
            file.truncate(0)
            file.write(text)
    except RequestError:
        raise
    except (OSError, ValueError) as error:
        raise unusable(path, what, error, "written") from None


def parse_json(text: str, what: str) -> Any:
    """A JSON document of at most MAX_DEPTH levels, whose integers have at most MAX_DIGITS digits.

    Raises RequestError that begins with ``what``, also for a key that an object has twice.
    """
    try:
        document = json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError:
        raise RequestError(f"{what}: not JSON of at most {MAX_DEPTH} levels") from None
    except RequestError as error:
        raise RequestError(f"{what}: {error}") from None
    except ValueError as error:
        raise RequestError(f"{what}: not JSON: {error}") from None
    level = _containers([document])
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _containers(parent)]
    if level:
        raise RequestError(f"{what}: not JSON of at most {MAX_DEPTH} levels")
    return document


def _check_kind(path: str | Path, what: str, facts: os.stat_result, done: str = "read") -> None:
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
        raise RequestError(f"{what} {shown(path)}: cannot be {done}: it is {kind}")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits):,} digits, at most {MAX_DIGITS} are read")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict[str, Any]()
    for name, value in pairs:
        if name in fields:
            raise RequestError(f"{name!r:.60}: given twice; leave one out")
        fields[name] = value
    return fields


def _containers(parent: Any) -> list[Any]:
    children = parent.values() if isinstance(parent, dict) else parent
    return [child for child in children if isinstance(child, (dict, list))]
