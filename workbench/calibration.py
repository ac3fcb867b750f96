"""A calibration: what a device was seen to reach, fitted on measured records, with its provenance.

One JSON file holds one device. Vocabulary: nothing here imports torch. ``sweep/calibrate.py``
writes such files, ``probe/roofline.py`` uses them.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.devices import DEVICES
from workbench.errors import RequestError
from workbench.files import read_json, unusable
from workbench.spec import Cell

PACKAGED = Path(__file__).with_name("calibrations")
"""Calibrations that are found by their device without being asked for: ``<device>.json``."""
NONE = "none"
"""The word that asks for a prediction without any calibration."""

MAX_BYTES = 4 * 2**20
"""Of a calibration's file: one of every class of operator has some 20 kB."""

_MODEL = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Count = Annotated[int, Field(ge=0, strict=True)]
Seconds = Annotated[float, Field(ge=0)]


class Fitted(BaseModel):
    """A fitted figure and its approximate 95 % interval."""

    model_config = _MODEL

    value: Annotated[float, Field(gt=0)]
    low: Seconds
    high: Seconds
    num_cells: Annotated[int, Field(ge=1, strict=True)]
    """Cells in which it decides at least 5 % of the time."""
    efficiency: float | None = None
    """Over the datasheet's figure, where the device states one."""


class Spread(BaseModel):
    """Relative errors of predicted seconds, (predicted − measured) / measured."""

    model_config = _MODEL

    median: Seconds
    """Of the absolute errors."""
    worst: Seconds
    bias: float
    """The median signed error."""
    num_cells: Count


class Source(BaseModel):
    """A store that was used."""

    model_config = _MODEL

    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    num_records: Count


class Covered(BaseModel):
    """What the records were of: beyond it a calibration is an extrapolation."""

    model_config = _MODEL

    num_visual: tuple[Count, Count]
    models: tuple[str, ...]
    attentions: tuple[str, ...]
    kernels: tuple[str, ...]
    scopes: tuple[str, ...]
    passes: tuple[str, ...]
    dtypes: tuple[str, ...]

    def beyond(self, cell: Cell) -> list[str]:
        """What of ``cell`` was not among the records, each as a clause."""
        low, high = self.num_visual
        named = (
            ("model", cell.model, self.models),
            ("attention", cell.attention, self.attentions),
            ("kernel", cell.kernel, self.kernels),
            ("scope", cell.scope, self.scopes),
            ("pass", cell.pass_, self.passes),
            ("dtype", cell.dtype, self.dtypes),
        )
        found = [f"{field} {value!r} was not measured" for field, value, seen in named
                 if value not in seen]  # fmt: skip
        if not low <= cell.num_visual <= high:
            found.append(f"|V| {cell.num_visual:,} is outside {low:,} to {high:,}")
        return found


class Calibration(BaseModel):
    """Rates of one device; see ``docs/method.md`` for the model that they belong to."""

    model_config = _MODEL

    format: Literal["workbench-calibration"] = "workbench-calibration"
    version: Literal[1] = 1
    device: Annotated[str, Field(min_length=1, max_length=200)]
    carried_from: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The device that was measured, where it is another one with the same processor."""
    made_at: str
    """ISO 8601 in UTC."""
    workbench: str
    conventions: tuple[str, ...]
    flops_per_s: dict[str, Fitted]
    """By class of operator: ``matmul bfloat16``, ``attention flash bfloat16``, …"""
    bytes_per_s: dict[str, Fitted]
    """``operators``, and ``optimizer`` for AdamW's pass over its states."""
    exposed: Fitted | None
    """Share of the shorter of computing and moving bytes that the longer does not hide; None where
    it was too small to be seen."""
    overhead_s: Fitted | None
    """Of each operator call on the device; None as above."""
    launch_s: Fitted | None
    """Of each operator call on the host, which runs ahead; None as above, and on the CPU."""
    undetermined: tuple[str, ...]
    """Figures that the records do not determine."""
    num_records: Annotated[int, Field(ge=1, strict=True)]
    left_out: dict[str, Count]
    """Why measured records were not used, and how many."""
    stores: tuple[Source, ...]
    environments: tuple[dict[str, str | int | None], ...]
    covered: Covered
    fitted: Spread
    held_out: dict[str, Spread]
    """Of cells that their fit did not see: ``cells``, and ``systems`` left out whole."""

    @property
    def overheads(self) -> tuple[Fitted | None, Fitted | None, Fitted | None]:
        """What comes on top of a roofline: exposed, overhead_s, launch_s."""
        return self.exposed, self.overhead_s, self.launch_s

    @property
    def sentence(self) -> str:
        """What a predicted time says of where its rates come from."""
        made_on = sorted({_machine(found) for found in self.environments})
        cells = self.held_out.get("cells")
        error = "" if cells is None else f"; held-out error {cells.median:.1%} at the median"
        carried = f", carried over from {self.carried_from}" if self.carried_from else ""
        return (
            f"{self.device}{carried}, {self.made_at[:10]}, {self.num_records} records on "
            f"{', '.join(made_on)}{error}"
        )

    @property
    def provenance(self) -> dict[str, str | int]:
        """What a record keeps of the calibration that it was predicted with."""
        return {
            "device": self.device,
            "made_at": self.made_at,
            "num_records": self.num_records,
            "sha256": hashlib.sha256(self.text.encode()).hexdigest(),
        }

    @property
    def text(self) -> str:
        """The file's text: JSON, its keys sorted."""
        document = self.model_dump(mode="json")
        return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the file; raises RequestError where it cannot be written."""
        try:
            path.write_text(self.text, encoding="utf-8")
        except (OSError, ValueError) as error:
            raise unusable(path, "calibration", error, "written") from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; raises RequestError with the file, the field and what would be right."""
        document = read_json(path, "calibration", MAX_BYTES)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise RequestError(f"calibration {path}: {where}: {first['msg']}") from None


def _machine(environment: dict[str, str | int | None]) -> str:
    if environment.get("gpu"):
        return str(environment["gpu"])
    threads = environment.get("num_threads")
    return f"{environment.get('cpu')}, {threads} thread{'' if threads == 1 else 's'}"


def packaged(device: str) -> Path | None:
    """The calibration that comes with the workbench for a device entry, if there is one."""
    path = PACKAGED / f"{device}.json"
    return path if device in DEVICES and path.is_file() else None


def calibration_for(device: str, asked: str | None = None) -> Calibration | None:
    """The calibration of a device entry: the file asked for, else a packaged one, else None.

    ``asked`` may be ``none``. Raises RequestError for a file that cannot be used, also one that
    belongs to another device.
    """
    if asked == NONE:
        return None
    path = packaged(device) if asked is None else Path(asked)
    if path is None:
        return None
    found = Calibration.read(path)
    if found.device != device:
        raise RequestError(
            f"calibration {path}: belongs to device {found.device!r}, not to {device!r}"
        )
    return found


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
            device = Calibration.read(Path(word)).device
            if device in files:
                raise RequestError(f"calibration {word}: {files[device]} is of {device!r} already")
            files[device] = word
        return cls(files, words == [NONE])

    def check(self, devices: Iterable[str]) -> None:
        """Raise RequestError for a file whose device is not predicted."""
        known = sorted(set(devices))
        for device, word in self.files.items():
            if device not in known:
                wanted = ", ".join(known) or "none"
                raise RequestError(
                    f"calibration {word}: belongs to device {device!r}; predicted: {wanted}"
                )

    def file(self, device: str) -> str | None:
        """What to ask of a prediction for that device entry."""
        return NONE if self.none else self.files.get(device)
