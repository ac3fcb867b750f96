"""What a sweep asks of Slurm, and whether this cluster can serve it: asked before it is used."""

import os
import re
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench.inputs.files import shown
from workbench.sweep.engines.slurm_cluster import Cluster, ask, last_line, partition, run
from workbench.vocabulary.errors import Failure, Faults, RequestError

PROGRAMS = ("sbatch", "srun", "sinfo", "sacct", "scontrol")
# File systems that a disk of one machine has; any other, as nfs, lustre or gpfs, may be shared.
_LOCAL = {
    "autofs",
    "bcachefs",
    "btrfs",
    "devtmpfs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "jfs",
    "ntfs3",
    "overlay",
    "ramfs",
    "reiserfs",
    "rootfs",
    "squashfs",
    "tmpfs",
    "vfat",
    "xfs",
    "zfs",
}

_OURS = {
    "array": "--workers",
    "cpus-per-task": "--cpus-per-task",
    "gpus": "--gpus-per-task",
    "gpus-per-node": "--gpus-per-task",
    "partition": "--partition",
    "time": "--time",
}

_ENGINE = {
    "chdir",
    "clusters",
    "cluster-constraint",
    "error",
    "help",
    "input",
    "job-name",
    "no-requeue",
    "open-mode",
    "output",
    "parsable",
    "quiet",
    "requeue",
    "signal",
    "test-only",
    "time-min",
    "usage",
    "version",
    "wait",
    "wrap",
}
"""Options of sbatch by which the engine finds, warns and requeues its jobs, or reads sbatch."""

_MULTIPLIES = {
    "gpus-per-socket",
    "gpus-per-task",
    "nodes",
    "ntasks",
    "ntasks-per-core",
    "ntasks-per-gpu",
    "ntasks-per-node",
    "ntasks-per-socket",
    "spread-job",
    "tres-per-task",
}
"""Options that make several processes of a job: each would run the job's cells."""

ODD = "%\\\"'`$"
"""Characters that Slurm or a shell reads as something else."""

_CHOOSES = {"constraint", "exclude", "gres", "nodefile", "nodelist"}
"""Options of sbatch with which the caller has chosen nodes."""


@dataclass(frozen=True)
class Request:
    """What each job of a sweep gets, and how many run at once."""

    minutes: int = 60
    partition: str | None = None
    gpus: int | None = None
    """GPUs of each job; None is one where the sweep measures on a GPU."""
    gpu_type: str | None = None
    """The kind of GPU, where the partition has several."""
    cpus: int | None = None
    workers: int | None = None
    """Jobs at once; None is as many as the partition has room for."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Other options of sbatch by their long names, such as ``account``."""
    shared: bool = False
    """The caller knows that the folder is shared, whatever its file system."""


def pairs(words: Sequence[str]) -> dict[str, str]:
    """``account=vision`` as name and value; RequestError for anything else."""
    options: dict[str, str] = {}
    faults = Faults()
    for word in words:
        with faults:
            name, value = _pair(word)
            if name in options:
                raise RequestError(f"sbatch {word!r}: {name} is given twice")
            options[name] = value
    faults.raise_all()
    return options


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.removeprefix("--").partition("=")
    if not equals or not re.fullmatch(r"[a-z][a-z-]*", name) or not value.isprintable():
        raise RequestError(f"sbatch {word!r}: a long option and its value, as account=vision")
    if name in _OURS:
        raise RequestError(f"sbatch {word!r}: say it with {_OURS[name]}")
    # sbatch takes the beginning of a name for the whole.
    for reserved in sorted((*_OURS, *_ENGINE, *_MULTIPLIES)):
        if reserved.startswith(name):
            raise RequestError(f"sbatch {word!r}: {_why_not(reserved, name)}")
    return name, value


def _why_not(option: str, name: str) -> str:
    means = "" if option == name else f"may mean {option}: "
    if option in _OURS:
        return f"{means}say it with {_OURS[option]}"
    if option in _MULTIPLIES:
        return f"{means}a job is one process on one node; --workers says how many jobs"
    return f"{means}the engine says it itself"


def check_name(folder: Path) -> None:
    """Raise RequestError where a job's script could not name the folder.

    Slurm replaces what follows a percent sign, and takes quotes and backslashes its own way.
    """
    name = str(folder.absolute())
    odd = sorted({c for c in name if not c.isprintable() or c in ODD})
    if odd:
        raise RequestError(
            f"folder {shown(folder)}: a job's script cannot name it; it has {odd[0]!r}"
        )


def check(request: Request, folder: Path) -> Cluster:
    """The partition that the request means; nothing is submitted.

    Raises RequestError, one line, for what the cluster does not have, and Failure where Slurm
    itself does not answer.
    """
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        raise RequestError(
            f"engine slurm: {', '.join(lacking)} not on PATH; run this where jobs are submitted, "
            "or use --engine local"
        )
    for name, value in (("workers", request.workers), ("cpus_per_task", request.cpus)):
        if value is not None and value < 1:
            raise RequestError(f"{name} {value}: at least 1 is needed")
    check_name(folder)
    place = check_place(folder)
    cluster = partition(request.partition)
    gpus, kind = request.gpus or 0, request.gpu_type
    if kind is not None and kind not in cluster.gpu_types:
        has = ", ".join(cluster.gpu_types) or "no GPUs whose kind Slurm was told"
        raise RequestError(f"gpu_type {kind!r}: partition {cluster.partition!r} has {has}")
    most = max((node.count(kind) for node in cluster.nodes), default=0)
    if gpus < 0 or gpus > most:
        of_kind = f" {kind}" if kind else ""
        raise RequestError(
            f"gpus_per_task {gpus}: no node of partition {cluster.partition!r} has more "
            f"than {most}{of_kind}"
        )
    if cluster.most_minutes is not None and request.minutes > cluster.most_minutes:
        raise RequestError(
            f"time {request.minutes} min: partition {cluster.partition!r} lets a job run for "
            f"{cluster.most_minutes} min"
        )
    if request.workers is not None and request.workers > cluster.most_jobs:
        raise RequestError(
            f"workers {request.workers}: an array of this cluster has at most "
            f"{cluster.most_jobs} jobs (MaxArraySize)"
        )
    if not request.shared:
        check_shared(place, cluster)
    _would_accept(request, cluster)
    _accounting()
    return cluster


def mixture(request: Request, cluster: Cluster) -> str | None:
    """What to tell who asks for GPUs and has not said which of several kinds."""
    if not request.gpus or request.gpu_type or _CHOOSES & request.more.keys():
        return None
    kinds = [kind for kind in cluster.gpu_types if cluster.room(request.gpus, kind)]
    if len(kinds) < 2:
        return None
    return (
        f"partition {cluster.partition!r} has {' and '.join(kinds)} GPUs, and a cell is measured "
        f"on whichever is free; --gpu-type {kinds[0]} would choose"
    )


def sbatch_options(request: Request, cluster: Cluster) -> dict[str, str | int]:
    """The request by the long names of sbatch's options."""
    options: dict[str, str | int] = {"partition": cluster.partition, "time": request.minutes}
    if request.gpus:
        options["gpus-per-node"] = gpus_per_node(request)
    if request.cpus:
        options["cpus-per-task"] = request.cpus
    return {**options, **request.more}


def gpus_per_node(request: Request) -> str | int:
    """The GPUs of a job as sbatch has them: ``1`` or ``h100:1``."""
    count = request.gpus or 0
    return f"{request.gpu_type}:{count}" if request.gpu_type else count


def _would_accept(request: Request, cluster: Cluster) -> None:
    """Let Slurm itself look at the request: limits, accounts and all that only it knows."""
    options = [f"--{name}={value}" for name, value in sbatch_options(request, cluster).items()]
    process = run("sbatch", "--test-only", *options, "--wrap=true")
    if process.returncode != 0:
        reason = last_line(process.stderr).removeprefix("allocation failure: ")
        raise RequestError(f"engine slurm: {' '.join(options)}: {reason}")


def _accounting() -> None:
    try:
        ask("sacct", "--noheader", "--allocations", "--starttime=now")
    except Failure as error:
        raise RequestError(
            f"{error}; sacct has to work, since nothing else tells a job that was killed"
        ) from None


def check_shared(folder: Path, cluster: Cluster) -> None:
    """Raise RequestError for a folder on a disk of this machine where another is to use it."""
    here = socket.gethostname().partition(".")[0]
    others = [host for host in cluster.hosts if host.partition(".")[0] != here]
    kind = file_system(folder)
    if others and kind in _LOCAL:
        raise RequestError(
            f"folder {str(folder)!r}: is on a disk of this machine ({kind}), which {others[0]} "
            "does not see; name a shared one with --folder, or say --shared if it is"
        )


def check_place(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists.

    Raises RequestError for what is no folder, and for one that is not the caller's to write in.
    """
    place = folder.absolute()
    try:
        while not place.exists():
            place = place.parent
    except OSError as error:
        raise RequestError(f"folder {str(folder)!r}: {error.strerror}") from None
    if not place.is_dir():
        raise RequestError(f"folder {str(folder)!r}: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RequestError(f"folder {str(folder)!r}: {place} cannot be written")
    return place


def file_system(place: Path) -> str:
    """The type of the file system on which ``place`` is."""
    device = place.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        fields, _, kind = line.partition(" - ")
        if fields.split()[2] == number:
            return kind.split()[0]
    return "unknown"
