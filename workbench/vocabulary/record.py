"""The vocabulary of a result: Record, Metric, Status, Environment. Nothing here imports torch."""

import hashlib
import json
from enum import StrEnum
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from workbench.vocabulary.cell import Cell
from workbench.vocabulary.fields import Source


class Status(StrEnum):
    """How a cell ended. ``oom`` and ``unsupported`` are results; ``killed`` is never an OOM."""

    OK = "ok"
    OOM = "oom"
    KILLED = "killed"
    TIMEOUT = "timeout"
    ERROR = "error"
    UNSUPPORTED = "unsupported"

    @property
    def done(self) -> bool:
        """Whether the cell is finished: a resumed sweep skips it and the exit code is 0."""
        return self in (Status.OK, Status.OOM, Status.UNSUPPORTED)


class Ceiling(NamedTuple):
    """What a device reaches in a data type, measured once for an environment."""

    flops_s: float
    """FLOP/s of a large matmul."""
    bytes_s: float
    """Bytes a second that a large copy reads and writes."""

    def at(self, intensity: float) -> float:
        """The roofline's FLOP/s at ``intensity`` FLOPs a byte."""
        return min(self.flops_s, intensity * self.bytes_s)


FLAGS_OF_ALL = {"emulated": "emulated", "memory_cap": "smaller card emulated"}
"""Flags that bear on every figure of a record, and the word that stands beside these."""
FLAGS_OF_TIME = {
    "no_warmup": "cold",
    "power_capped": "power-capped",
    "throttled": "throttled",
    "shared": "shared card",
    "host_bound": "host-bound",
}
"""Flags that bear on its seconds."""


class Environment(BaseModel):
    """Where and with what a run was made. Facts that are missing are None, never a guess."""

    model_config = ConfigDict(frozen=True, extra="allow")

    host: str | None = None
    os: str | None = None
    cpu: str | None = None
    num_threads: int | None = None
    memory_bytes: int | None = None
    gpu: str | None = None
    num_gpus: int = 0
    gpu_memory_bytes: int | None = None
    driver: str | None = None
    cuda: str | None = None
    python: str | None = None
    torch: str | None = None
    transformers: str | None = None
    workbench: str | None = None
    commit: str | None = None

    @property
    def fingerprint(self) -> str:
        """What must agree for a run to be continued.

        The host's name and the commit need not, nor the memory, which some machines grow.
        """
        facts = self.model_dump(exclude={"host", "commit", "memory_bytes"})
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Record(BaseModel):
    """One result. It belongs to (run, cell key, source, device); the store adds the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cell: Cell
    source: Source
    device: str
    status: Status
    metrics: dict[str, int | float | None] = Field(default_factory=dict)
    samples: dict[str, list[float]] = Field(default_factory=dict)
    """Every raw sample by metric, e.g. ``time_s``, in the order taken."""
    flags: list[str] = Field(default_factory=list)
    """Quality flags and the reason for each metric that is None, ``name: sentence``."""
    error: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    """Structured extras: which kernel ran, FLOPs by operator, memory by kind."""
    environment: Environment = Environment()
    started_at: str = ""
    """ISO 8601 in UTC."""
    duration_s: float | None = None

    def document(self) -> dict[str, Any]:
        """The JSON document of the command line's contract."""
        body = self.model_dump(mode="json", exclude={"cell", "samples", "environment"})
        return {
            "cell": self.cell.document(),
            "key": self.cell.key,
            **body,
            "samples": self.samples,
            "environment": self.environment.model_dump(mode="json"),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """The inverse of ``document``; raises pydantic's ValidationError for anything else."""
        return cls.model_validate({k: v for k, v in document.items() if k != "key"})
