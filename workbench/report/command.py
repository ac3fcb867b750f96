"""The command that repeats a cell, and the sweep that repeats a run of none."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from workbench.vocabulary.calibration import NONE, of_content, packaged
from workbench.vocabulary.cell import Cell, option_of
from workbench.vocabulary.record import Record

_EMULATED = re.compile(r"emulated: .*?(\d+) of (\d+) layers run")
_BARE = re.compile(r"no_warmup: (\d+) iterations, from the first on")
ASKED = {
    "resolution": "--resolution",
    "count": "--images",
    "frames": "--frames",
    "fps": "--fps",
    "min_pixels": "--min-pixels",
    "max_pixels": "--max-pixels",
    "max_frames": "--max-frames",
    "max_video_tokens": "--max-video-tokens",
    "pan_and_scan": "--pan-and-scan",
}
"""What is shown in place of files, and what may be asked of a front end: field and option."""


def command_of(
    cell: Cell,
    source: str,
    device: str,
    flags: Sequence[str] = (),
    details: Mapping[str, Any] | None = None,
) -> str:
    """``workbench measure`` or ``predict`` with every option that differs from its default.

    ``flags`` and ``details`` are the record's: they say whether a rank was emulated and which
    files were shown. Files go by their names, so the command runs in their folder.
    """
    words = ["workbench", "measure" if source == "measured" else "predict"]
    changed = cell.model_dump(by_alias=True, exclude_defaults=True)
    shown = list(_shown(details or {}))
    # |V| and the layout are what files or sizes make of them: a command states one or the other.
    first = {} if shown else {"num_visual": cell.num_visual}
    left_out = ("num_visual", "layout") if shown else ()
    for name, value in {**first, **changed}.items():
        if name in left_out:
            continue
        option = option_of(name)
        words += [option] if value is True else [option, str(value)]
    layers = emulated_layers(flags)
    words += shown + ([] if layers is None else ["--emulate", str(layers)])
    rates = _calibration(source, device, flags, details or {})
    words += [] if rates is None else ["--calibration", rates]
    return shlex.join([*words, "--device", _device(source, device)])


def repeat(record: Record) -> str:
    """The command of a record."""
    return command_of(record.cell, record.source, record.device, record.flags, record.details)


def calibration_asked(record: Record) -> str | None:
    """What a command says of the calibration of a record's prediction; None for nothing."""
    return _calibration(record.source, record.device, record.flags, record.details)


def emulated_layers(flags: Iterable[str]) -> str | int | None:
    """How many layers of an emulated rank ran, ``all`` or a number; None for what is none."""
    for flag in flags:
        if match := _EMULATED.match(flag):
            return "all" if match[1] == match[2] else int(match[1])
    return None


def _calibration(
    source: str, device: str, flags: Iterable[str], details: Mapping[str, Any]
) -> str | None:
    """The file of a prediction's own calibration, with its content's digest.

    ``none`` where it did without the calibration that comes for the device; None for that one.
    """
    made_with = details.get("calibration")
    if isinstance(made_with, dict):
        file, digest = made_with.get("file"), made_with.get("sha256")
        if isinstance(file, str) and isinstance(digest, str):
            return of_content(file, digest)
    plain = source == "predicted" and any(flag.startswith("uncalibrated") for flag in flags)
    return NONE if plain and packaged(device) is not None else None


def _iterations(flags: Iterable[str]) -> int | None:
    """How many iterations a trial ran, from the first on; None for what was warmed up."""
    matches = [_BARE.match(flag) for flag in flags]
    return next((int(match[1]) for match in matches if match), None)


def _shown(details: Mapping[str, Any]) -> Iterator[str]:
    """The options for the files or sizes that a record shows, and for what was asked of them."""
    pictures = details.get("pictures")
    for fact in pictures if isinstance(pictures, list) else ():
        if isinstance(fact, dict) and isinstance(fact.get("file"), str):
            yield from ("--video" if "frames" in fact else "--image", fact["file"])
    request = details.get("pictures_asked")
    for name, value in request.items() if isinstance(request, dict) else ():
        if name in ASKED and value is not None and value is not False:
            yield from [ASKED[name]] if value is True else [ASKED[name], str(value)]


def _device(source: str, device: str) -> str:
    """A measured device's name is the driver's; on the command line any such card is ``cuda``."""
    return device if source == "predicted" or device == "cpu" else "cuda"


def sweep_of(name: str, records: Iterable[Record]) -> dict[str, Any]:
    """A sweep with the cells of records that no sweep made, as its YAML has it.

    One grid for all cells that differ in |V| alone. Cells that show files or sizes are left out: a
    sweep has none, and ``repeat`` has their commands. Without any cell there are no grids.
    """
    grids: dict[Any, dict[str, Any]] = {}
    for record in records:
        if record.details.get("pictures"):
            continue
        layers = emulated_layers(record.flags)
        bare = _iterations(record.flags)
        rates = calibration_asked(record)
        key = (record.cell.kind, record.source, record.device, layers, bare, rates)
        if key not in grids:
            changed = record.cell.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            changed.pop("num_visual", None)
            protocol = {"emulate": layers, "iterations": bare}
            settings = {name: value for name, value in protocol.items() if value is not None}
            grids[key] = {
                "source": record.source,
                "device": _device(record.source, record.device),
                "visual": [],
                "options": [changed],
                **({"protocol": settings} if settings else {}),
                **({} if rates is None else {"calibration": rates}),
            }
        if record.cell.num_visual not in grids[key]["visual"]:
            grids[key]["visual"].append(record.cell.num_visual)
    return {"name": name, "grids": list(grids.values())}
