"""The folder of a sweep under Slurm: what was submitted, and what each job has left there.

    FOLDER/RUN/run.json                   the run and its sweep
    FOLDER/RUN/000/batch.json             an array of jobs: its name, when, and the jobs' ids
    FOLDER/RUN/000/7.json                 the points of its job 7
    FOLDER/RUN/000/7.5123-0.part.db       the shard of one start of a job, ``.db`` once complete
    FOLDER/RUN/000/7.5123-0.done          a line a cell that ended
    FOLDER/RUN/000/logs/                  what submitit writes, the jobs' logs among it

Everything that the coordinator reads is JSON, text or a store. It is a shared folder, perhaps a
stranger's: of submitit's pickles, those with results are never opened.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from workbench.inputs.files import read_bytes
from workbench.vocabulary.errors import Failure, RequestError
from workbench.vocabulary.sweep import Point, Sweep

MAX_BYTES = 2**28
"""Of a file in the folder: the largest holds some hundred thousand points."""
MAX_LOG_BYTES = 2**20
T = TypeVar("T", bound=BaseModel)
_MODEL = ConfigDict(frozen=True, extra="forbid")
JobId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(_[0-9]{1,6})?$")]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,149}$"


class SweepFile(BaseModel):
    """A sweep as it is written down: its cells are not made again only to know its name."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(pattern=_NAME)


class RunFile(BaseModel):
    """``run.json``."""

    model_config = _MODEL

    run: str = Field(pattern=_NAME)
    sweep: SweepFile
    partition: str
    gpus: int
    gpu_type: str | None = None
    calibrations: tuple[str, ...] = ()
    """What tells those apart that it was asked to predict with."""

    @property
    def identity(self) -> tuple[str, str, int, str | None, tuple[str, ...]]:
        """What must agree for the run to be continued; the nodes' software is not known here."""
        return self.sweep.name, self.partition, self.gpus, self.gpu_type, self.calibrations


class BatchFile(BaseModel):
    """``batch.json``. Without jobs the coordinator ended before it knew their ids."""

    model_config = _MODEL

    name: str = Field(pattern=_NAME)
    submitted_at: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$")
    """Local time, as Slurm has it."""
    num_jobs: int = Field(ge=1, le=100_000)
    minutes: int = Field(ge=1, le=10**8)
    jobs: tuple[JobId, ...] | None = None

    @field_validator("submitted_at")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value


class JobFile(BaseModel):
    """The points of one job, and how often each was under way when a job before it ended."""

    model_config = _MODEL

    points: tuple[Point, ...]
    strikes: dict[str, int] = {}
    """By ``cell_id``."""
    trace: str | None = None
    """A folder for profiler traces."""


def cell_id(point: Point, key: str | None = None) -> str:
    """What a cell is called where its device's name is not known yet; ``key`` if it is at hand."""
    return f"{key or point.cell.key} {point.source} {point.device}"


def write(path: Path, document: BaseModel) -> None:
    """Whole or not at all: a coordinator may be killed at any time."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    draft.write_text(document.model_dump_json(by_alias=True, exclude_defaults=True))
    os.replace(draft, path)


def _read(kind: type[T], path: Path) -> T:
    try:
        return kind.model_validate_json(read_bytes(path, "sweep under Slurm", MAX_BYTES))
    except ValidationError as error:
        reason = str(error).splitlines()[0]
        raise RequestError(f"{path}: not the file of a sweep under Slurm: {reason}") from None


class Job:
    """One job of a batch: its points, its files, and what its starts have left."""

    def __init__(self, batch: "Batch", number: int) -> None:
        self.batch, self.number = batch, number

    @property
    def id(self) -> str | None:
        """The job's number at Slurm, such as ``5123_7``; None where it is not known."""
        jobs = self.batch.file.jobs
        return jobs[self.number] if jobs is not None and self.number < len(jobs) else None

    @property
    def content(self) -> JobFile:
        """The job's points; RequestError where the file makes no sense."""
        return _read(JobFile, self.batch.folder / f"{self.number}.json")

    @property
    def shards(self) -> list[Path]:
        """The stores of all its starts, complete or not."""
        return sorted(self.batch.folder.glob(f"{self.number}.*.db"))

    @property
    def num_done(self) -> int:
        """Cells that have ended, as far as the job has said so."""
        notes = self.batch.folder.glob(f"{self.number}.*.done")
        return sum(path.read_bytes().count(b"\n") for path in notes if path.is_file())

    @property
    def num_starts(self) -> int:
        """How often it has begun: once more after every time that Slurm requeued it."""
        return len(list(self.batch.folder.glob(f"{self.number}.*.done")))

    @property
    def log(self) -> Path:
        """What the job and its starts have printed."""
        return self.batch.folder / "logs" / f"{self.id}_0_log.out"

    @property
    def log_lines(self) -> list[str]:
        """The last lines of it; none where there is none yet."""
        if not self.log.is_file():
            return []
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - MAX_LOG_BYTES))
            return file.read(MAX_LOG_BYTES).decode(errors="replace").splitlines()

    @property
    def is_merged(self) -> bool:
        """Whether the job has ended and its shards are in the store."""
        return (self.batch.folder / f"{self.number}.merged").exists()

    def set_merged(self) -> None:
        """The job has ended and its shards are in the store."""
        (self.batch.folder / f"{self.number}.merged").touch()


class Batch:
    """An array of jobs that were submitted together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = _read(BatchFile, folder / "batch.json")

    @property
    def jobs(self) -> list[Job]:
        """The batch's jobs, in the order of the array."""
        return [Job(self, number) for number in range(self.file.num_jobs)]

    def set_jobs(self, ids: list[str]) -> None:
        """Keep the numbers under which Slurm has taken the jobs."""
        self.file = self.file.model_copy(update={"jobs": tuple(ids)})
        write(self.folder / "batch.json", self.file)


class Run:
    """One run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = _read(RunFile, folder / "run.json")

    @property
    def batches(self) -> list[Batch]:
        """In the order in which they were submitted."""
        folders = sorted(path.parent for path in self.folder.glob("*/batch.json"))
        return [Batch(folder) for folder in folders]

    def add(self, contents: list[JobFile], minutes: int) -> Batch:
        """Write down a batch before it is submitted."""
        number = len(list(self.folder.glob("[0-9]*")))
        folder = self.folder / f"{number:03}"
        (folder / "logs").mkdir(parents=True)
        for index, content in enumerate(contents):
            write(folder / f"{index}.json", content)
        # Whoever finds a batch without ids asks Slurm for this name.
        name = f"wb-{secrets.token_hex(6)}"
        now = datetime.now().isoformat(timespec="seconds")
        file = BatchFile(name=name, submitted_at=now, num_jobs=len(contents), minutes=minutes)
        write(folder / "batch.json", file)
        return Batch(folder)


def runs(folder: Path) -> list[Run]:
    """Every run under ``folder``, oldest first."""
    files = sorted(folder.glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    return [Run(path.parent) for path in files]


def newest(folder: Path, like: RunFile) -> Run | None:
    """The newest run that ``like`` would continue."""
    fitting = (run for run in reversed(runs(folder)) if run.file.identity == like.identity)
    return next(fitting, None)


def wanted_run(
    sweep: Sweep,
    partition: str,
    gpus: int,
    calibrations: Iterable[str],
    gpu_type: str | None = None,
) -> RunFile:
    """A run that is only asked for yet."""
    stamp = datetime.now(UTC)
    name = f"{sweep.name}-{stamp:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    spec = SweepFile.model_validate(sweep.model_dump(mode="json", by_alias=True))
    return RunFile(
        run=name,
        sweep=spec,
        partition=partition,
        gpus=gpus,
        gpu_type=gpu_type,
        calibrations=tuple(sorted(calibrations)),
    )


def begin(folder: Path, file: RunFile) -> Run:
    """A new run."""
    (folder / file.run).mkdir()
    write(folder / file.run / "run.json", file)
    return Run(folder / file.run)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One coordinator at a time; Failure where there is another. It ends with its process."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Failure(
                f"another sweep is at work in {folder}; 'workbench jobs' shows its jobs"
            ) from None
        yield
