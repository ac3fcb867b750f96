"""A calibration: what a device was seen to reach, fitted on measured records, with its provenance.

One JSON file holds one device. Vocabulary: nothing here imports torch. ``sweep/calibrate.py``
writes such files, ``probe/predicting/roofline.py`` uses them.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, ValidationError

from workbench.inputs.files import read_json, write_text
from workbench.vocabulary.calibration_parts import (
    ENOUGH,
    MODEL,
    WAYS,
    ByteRate,
    Count,
    Covered,
    Duration,
    Fitted,
    FlopRate,
    Phase,
    Share,
    Source,
    Spread,
    Text,
    Way,
    phase_of,
)
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import reason_words

PACKAGED = Path(__file__).with_name("calibrations")
"""Calibrations that are found by their device without being asked for: ``<device>.json``."""
NONE = "none"
"""The word that asks for a prediction without any calibration."""

_OF_CONTENT = re.compile(r"(.+)@([0-9a-f]{12,64})")
"""A file and how the digest of its content begins: ``mine.json@7a1c0e5b2f94``."""

MAX_BYTES = 4 * 2**20
"""Of a calibration's file: one of every class of operator has some 20 kB."""


class Calibration(BaseModel):
    """Rates of one device; see ``docs/method.md`` for the model that they belong to."""

    model_config = MODEL

    format: Literal["workbench-calibration"] = "workbench-calibration"
    version: Literal[2] = 2
    """Of the model that the figures belong to; 1 had no start of an iteration."""
    device: Annotated[Text, Field(max_length=200)]
    carried_from: Annotated[Text, Field(max_length=200)] | None = None
    """The device that was measured, where it is another one with the same processor."""
    made_at: Text
    """ISO 8601 in UTC."""
    workbench: Text
    conventions: tuple[Text, ...]
    flops_per_s: dict[Text, FlopRate]
    """By class of operator: ``matmul bfloat16``, ``attention flash bfloat16``, …"""
    bytes_per_s: dict[Text, ByteRate]
    """``operators``, and ``optimizer`` for AdamW's pass over its states."""
    exposed: Share | None
    """Share of the shorter of computing and moving bytes that the longer does not hide; None where
    it was too small to be seen."""
    overhead_s: Duration | None
    """Seconds that each operator call costs on the device; None where it was too small to see."""
    launch_s: Duration | None
    """Seconds that each operator call costs on the host, which runs ahead; None where it was too
    small to see, and on the CPU."""
    start_s: dict[Phase, Duration]
    """Seconds that each iteration costs on the host, by pass (a decode step starts as a forward);
    empty where it was too small to see."""
    undetermined: tuple[Text, ...]
    """Figures that the records do not determine."""
    num_records: Annotated[int, Field(ge=1, strict=True)]
    num_host_bound: Count = 0
    """Records that had no say in the rates, for the device waited for its host."""
    left_out: dict[Text, Count]
    """Why measured records were not used, and how many."""
    stores: tuple[Source, ...]
    environments: tuple[dict[Text, Text | int | None], ...]
    covered: Covered
    fitted: Spread
    alone: Text | None = None
    """The run whose records a fit of their own saw, for the errors ``alone`` of all others."""
    held_out: dict[Way, Spread]
    """Of cells that their fit did not see: every tenth cell, each once (``cells``); each system
    whole (``systems``); all but the run ``alone``."""
    held_out_by_kind: dict[Way, dict[Text, Spread]]
    """Errors of cells that their fit did not see, by the cells' ``kind_of``."""

    @property
    def overheads(self) -> tuple[Fitted | None, Fitted | None, Fitted | None]:
        """What comes on top of a roofline on every call: exposed, overhead_s, launch_s."""
        return self.exposed, self.overhead_s, self.launch_s

    def start_of(self, cell: Cell) -> Fitted | None:
        """The start of the cell's pass; None where there is none."""
        return self.start_s.get(phase_of(cell))

    @property
    def sentence(self) -> str:
        """Where the rates come from."""
        made_on = sorted({_machine(facts) for facts in self.environments})
        source = f", carried over from {self.carried_from}" if self.carried_from else ""
        return (
            f"{self.device}{source}, {self.made_at[:10]}, {self.num_records} records on "
            f"{', '.join(made_on)}"
        )

    def error_of(self, kind: str) -> str:
        """How far predicted seconds of a kind of cell are from measured ones, in a clause."""
        for way in WAYS:
            spread = self.held_out_by_kind.get(way, {}).get(kind)
            if spread is not None and (spread.num_cells >= ENOUGH or way == "cells"):
                way_words = f"a fit of the run {self.alone} alone" if way == "alone" else WAYS[way]
                measured = f" on {self.carried_from}" if self.carried_from else ""
                return (
                    f"held-out error of {kind}{measured}: {spread.median:.1%} at the median, "
                    f"{spread.worst:.1%} at worst (of {spread.num_cells}, {way_words})"
                )
        return f"no {kind} was held out, so how good this is nobody knows"

    @property
    def provenance(self) -> dict[str, str | int]:
        """What a record keeps of the calibration that it was predicted with."""
        return {
            "device": self.device,
            "made_at": self.made_at,
            "num_records": self.num_records,
            "sha256": self.digest,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def text(self) -> str:
        """The file's text: JSON, its keys sorted."""
        document = self.model_dump(mode="json")
        return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the file; raises RequestError where it cannot be written."""
        write_text(path, "calibration", self.text)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; raises RequestError with the file, the field and what would be right."""
        document = read_json(path, "calibration", MAX_BYTES)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            names = ".".join(str(part) for part in first["loc"]) or "the document"
            where = names.encode("unicode_escape").decode()[:200]
            message = reason_words(first)
            again = "; 'workbench calibrate' writes version 2" if where == "version" else ""
            raise RequestError(f"calibration {path}: {where}: {message}{again}") from None


def _machine(environment: dict[str, str | int | None]) -> str:
    if environment.get("gpu"):
        return str(environment["gpu"])
    threads = environment.get("num_threads")
    return f"{environment.get('cpu')}, {threads} thread{'' if threads == 1 else 's'}"


def packaged(device: str) -> Path | None:
    """The calibration that comes with the workbench for a device entry, if there is one."""
    path = PACKAGED / f"{device}.json"
    return path if device in DEVICES and path.is_file() else None


def read_asked(word: str) -> Calibration:
    """The calibration of ``FILE``, or of ``FILE@DIGEST`` where its content is still that.

    Raises RequestError for a file that cannot be used, or that has changed.
    """
    match = None if Path(word).exists() else _OF_CONTENT.fullmatch(word)
    if match is None:
        return Calibration.read(Path(word))
    path, digest = Path(match[1]), match[2]
    calibration = Calibration.read(path)
    if not calibration.digest.startswith(digest):
        raise RequestError(
            f"calibration {path}: has changed, its digest is {calibration.digest[:12]} and not "
            f"{digest[:12]}; give the file as it was, or leave @{digest[:12]} out"
        )
    return calibration


def file_asked(word: str) -> str:
    """The file of a request as a record keeps it: as it was given, an absolute path by its name.

    A store goes to other machines, whose folders are others.
    """
    match = None if Path(word).exists() else _OF_CONTENT.fullmatch(word)
    path = Path(word if match is None else match[1])
    return path.name if path.is_absolute() else str(path)


def of_content(file: str, digest: str) -> str:
    """What asks for a file as long as its content has that digest."""
    return f"{file}@{digest[:12]}"


def calibration_for(device: str, asked: str | None = None) -> Calibration | None:
    """The calibration of a device entry: the file asked for, else a packaged one, else None.

    ``asked`` may be ``none``. Raises RequestError for a file that cannot be used, also one that
    belongs to another device.
    """
    if asked == NONE:
        return None
    word = packaged(device) if asked is None else asked
    if word is None:
        return None
    calibration = read_asked(str(word))
    if calibration.device != device:
        raise RequestError(
            f"calibration {word}: belongs to device {calibration.device!r}, not to {device!r}"
        )
    return calibration


@dataclass(frozen=True)
class Choice:
    """What a request says of calibrations, for predictions on several devices."""

    files: dict[str, str] = field(default_factory=dict)
    """By device entry."""
    none: bool = False

    @classmethod
    def of(cls, asked: Iterable[str]) -> "Choice":
        """Files, or the one word ``none``; RequestError for two files of one device."""
        words = list(asked)
        if NONE in words and len(words) > 1:
            raise RequestError("calibration none: leaves no room for a file beside it")
        files: dict[str, str] = {}
        for word in words if words != [NONE] else []:
            device = read_asked(word).device
            if device in files:
                raise RequestError(f"calibration {word}: {files[device]} is of {device!r} already")
            files[device] = word
        return cls(files, words == [NONE])

    def check(self, devices: Iterable[str]) -> None:
        """Raise RequestError for a file whose device is not predicted."""
        names = sorted(set(devices))
        for device, word in self.files.items():
            if device not in names:
                listing = ", ".join(names) or "none"
                raise RequestError(
                    f"calibration {word}: belongs to device {device!r}; predicted: {listing}"
                )

    def file(self, device: str) -> str | None:
        """What to ask of a prediction for that device entry."""
        return NONE if self.none else self.files.get(device)
