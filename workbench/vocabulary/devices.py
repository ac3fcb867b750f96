"""Devices as data: what a card can do at most, and how much of its memory a process can have.

The entries and the source of every figure stand in ``devices.yaml`` beside this file.
"""

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from workbench.inputs.yaml_text import read_yaml
from workbench.vocabulary.errors import Faults, RequestError
from workbench.vocabulary.fields import fault_words
from workbench.vocabulary.registry import Registry
from workbench.vocabulary.rules import Rule, Ruled

DTYPES = ("bfloat16", "float16", "float32", "float64")
"""The data types whose peak every card states; ``tf32`` may stand beside them."""

OPTIONAL = (
    "host_bandwidth_bytes_per_s",
    "link_bandwidth_bytes_per_s",
    "blas_workspace_bytes",
    "peak_clock_hz",
)
"""Figures that a card's file may leave out; what needs them then says that it has none."""

FIGURES = (
    "peak_flops",
    "bandwidth_bytes_per_s",
    "memory_bytes",
    "total_bytes",
    "context_bytes",
    *OPTIONAL,
)
"""The fields that need a source each."""

UNITS = {"B": 1, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30}


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return _number(value)
    match = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([A-Za-z]{1,3})", value.strip())
    if match is None or match[2] not in UNITS:
        raise ValueError("bytes are a whole number, or a number and one of " + ", ".join(UNITS))
    return int(float(match[1]) * UNITS[match[2]])


MAX_RATE, MAX_BYTES = 10.0**24, 2**60
"""Far above any card: what divides by a rate, or adds bytes up, stays finite."""
Rate = Annotated[float, BeforeValidator(_number), Field(ge=1, le=MAX_RATE, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0, le=MAX_BYTES)]


def _source(figure: str, device: "Device") -> str | None:
    if device.sources.get(figure):
        return None
    return f"sources.{figure}: every figure needs its source"


def _peak(dtype: str, device: "Device") -> str | None:
    if device.peak_flops is None or dtype in device.peak_flops:
        return None
    return f"peak_flops.{dtype}: missing; give the dense peak in FLOP/s"


def _known_peaks(device: "Device") -> str | None:
    dtypes = (*DTYPES, "tf32")
    for dtype in device.peak_flops or {}:
        if dtype not in dtypes:
            return f"peak_flops.{dtype}: unknown; known: {', '.join(dtypes)}"
    return None


def _room(device: "Device") -> str | None:
    if device.total_bytes is None or (device.context_bytes or 0) < device.total_bytes:
        return None
    return "context_bytes: leaves nothing of total_bytes"


class Device(Ruled):
    """One card; or the CPU, whose figures depend on the machine and are therefore None.

    Rates are per second. ``sources`` has the source of each figure, or the reason why it is None.
    """

    RULES: ClassVar[tuple[Rule, ...]] = (
        *(partial(_source, figure) for figure in FIGURES),
        *(partial(_peak, dtype) for dtype in DTYPES),
        _known_peaks,
        _room,
    )
    STAND_INS: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(FIGURES),
        "name": "card",
        "label": "card",
        "sources": {},
    }

    name: str = Field(min_length=1, max_length=200)
    label: str
    peak_flops: dict[str, Rate] | None
    bandwidth_bytes_per_s: Rate | None
    total_bytes: Bytes | None
    memory_bytes: Bytes | None
    context_bytes: Bytes | None
    host_bandwidth_bytes_per_s: Rate | None = None
    link_bandwidth_bytes_per_s: Rate | None = None
    blas_workspace_bytes: Bytes | None = None
    peak_clock_hz: Rate | None = None
    sources: dict[str, str]

    @property
    def capacity_bytes(self) -> int | None:
        """What one process can allocate: what CUDA reports less the context; None on the CPU."""
        if self.total_bytes is None or self.context_bytes is None:
            return None
        return self.total_bytes - self.context_bytes

    def peak(self, dtype: str) -> float | None:
        """Dense peak in FLOP/s for a data type of ``DTYPES`` or ``tf32``; None where unknown."""
        return None if self.peak_flops is None else self.peak_flops.get(dtype)


def _make(origin: str, fields: dict[str, Any]) -> Device:
    try:
        return Device.model_validate(fields)
    except ValidationError as error:
        faults = fault_words(error, Device.model_fields)
        raise RequestError(*(f"{origin}: {fault}" for fault in faults)) from None


def _read(path: Path) -> dict[str, Any]:
    document = read_yaml(path, "device")
    if not isinstance(document, dict):
        raise RequestError(f"{path}: a device is a mapping with peak_flops, total_bytes, …")
    return document


def load_device_file(path: Path) -> Device:
    """A user's own card from YAML, with the fields of an entry of ``devices.yaml``.

    ``name``, ``label``, ``memory_bytes``, ``sources`` and the figures of OPTIONAL may be left out.
    Raises RequestError with the file, the field and what would be right.
    """
    fields = _read(path)
    faults = Faults()
    for needed in ("peak_flops", "bandwidth_bytes_per_s", "total_bytes", "context_bytes"):
        if fields.get(needed) is None:
            faults.add(f"{path}: {needed}: missing; a card's file states it")
    sources = fields.get("sources") or {}
    if not isinstance(sources, dict):
        faults.add(f"{path}: sources: a mapping from figure to source is needed")
        sources = {}
    stated = dict.fromkeys(FIGURES) | {"memory_bytes": fields.get("total_bytes")} | fields
    origins = {**dict.fromkeys(FIGURES, str(path)), **sources}
    for figure in OPTIONAL:
        if fields.get(figure) is None:
            origins[figure] = f"{path} does not state it"
    with faults:
        names = {"name": path.stem, "label": path.stem}
        made = _make(str(path), {**names, **stated, "sources": origins})
    faults.raise_all()
    return made


DEVICES: Registry[Device] = Registry("device")
DEVICES.take_plugins("workbench.devices", Device)
# Ours, and with anchors, so that a source of several figures stands in it once.
_ENTRIES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
for _name, _fields in _ENTRIES.items():
    DEVICES.add(_name, _make(_name, {"name": _name, **_fields}))


def device(name: str) -> Device:
    """The entry of that name, or a ``.yaml`` file's device; RequestError lists the choices."""
    if name not in DEVICES and Path(name).suffix.lower() in (".yaml", ".yml"):
        return load_device_file(Path(name))
    return DEVICES[name]


def entry_of(device: str) -> str:
    """The device entry of a driver's name (``NVIDIA H200``), or ``cpu``.

    Raises RequestError where not exactly one entry's label has every word of the name.
    """
    if device in DEVICES:
        return device
    fits = [name for name, entry in DEVICES.items() if _words(device) <= _words(entry.label)]
    if len(fits) != 1:
        raise RequestError(
            f"device {device!r}: {len(fits)} entries fit it; name one of {', '.join(DEVICES)}"
        )
    return fits[0]


def _words(name: str) -> set[str]:
    return set(re.sub(r"(\d+)GB", r"\1 GB", name).replace("-", " ").split())
