"""Folders that a request names for what it wants to be left with."""

from pathlib import Path

from workbench.vocabulary.errors import RequestError


def check_folder(folder: Path, option: str) -> None:
    """Make ``folder``; RequestError where nothing can be written there."""
    probe = folder / f".{option}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"{option} {str(folder)!r}: cannot be written: {reason}") from None
