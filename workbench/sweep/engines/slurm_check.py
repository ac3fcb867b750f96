"""What a sweep asks of Slurm, and whether this cluster can serve it: asked before it is used."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from workbench.errors import Failure, RequestError

PROGRAMS = ("sbatch", "srun", "sinfo", "sacct", "scontrol")
COMMAND_S = 60.0
# File systems that a disk of one machine has; any other, as nfs, lustre or gpfs, may be shared.
_LOCAL = {
    "autofs", "bcachefs", "btrfs", "devtmpfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs",
    "ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs",
}  # fmt: skip


_OURS = {
    "array": "--workers", "cpus-per-task": "--cpus-per-task", "gpus": "--gpus-per-task",
    "gpus-per-node": "--gpus-per-task", "partition": "--partition", "time": "--time",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What each job of a sweep gets, and how many run at once."""

    minutes: int = 60
    partition: str | None = None
    gpus: int | None = None
    """Of each job; None is one where the sweep measures on a GPU."""
    cpus: int | None = None
    workers: int | None = None
    """Jobs at once; None is as many as the partition has room for."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Other options of sbatch by their long names, such as ``account``."""
    shared: bool = False
    """The caller knows that the folder is shared, whatever its file system."""


class Cluster(NamedTuple):
    """What the partition has."""

    partition: str
    gpus_a_node: tuple[int, ...]
    gpu_types: tuple[str, ...]
    hosts: tuple[str, ...]
    most_minutes: int | None = None
    """The longest time limit of a job; None where there is none."""


def minutes(text: str) -> int:
    """A time limit as Slurm writes it, in minutes: ``90``, ``1:30:00``, ``2-00:00:00``."""
    found = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?", text.strip())
    if found is not None:
        days, first, second, third = (int(part or 0) for part in found.groups())
        # Without days, "90" is minutes and "5:30" minutes and seconds; with them hours come first.
        hours_first = found[1] is not None or found[4] is not None
        seconds = 3600 * first + 60 * second + third if hours_first else 60 * first + second
        total = -(-(86_400 * days + seconds) // 60)
        if total >= 1:
            return total
    raise RequestError(f"time {text!r}: minutes, HH:MM:SS or D-HH:MM:SS, and at least a minute")


def pairs(words: Sequence[str]) -> dict[str, str]:
    """``account=vision`` as name and value; RequestError for anything else."""
    found = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z-]*", name) or "\n" in value:
            raise RequestError(f"sbatch {word!r}: a long option and its value, as account=vision")
        if name in _OURS:
            raise RequestError(f"sbatch {word!r}: say it with {_OURS[name]}")
        found[name] = value
    return found


def ask(*command: str) -> str:
    """What a command of Slurm prints; Failure with its last line where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=COMMAND_S
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"engine slurm: {command[0]} is silent for {COMMAND_S:g} s") from None
    if done.returncode != 0:
        raise Failure(f"engine slurm: {last_line(done.stderr) or f'{command[0]} fails'}")
    return done.stdout


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


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
    cluster = _partition(request.partition)
    wanted = request.gpus or 0
    most = max(cluster.gpus_a_node, default=0)
    if wanted < 0 or wanted > most:
        raise RequestError(
            f"gpus_per_task {wanted}: no node of partition {cluster.partition!r} has more "
            f"than {most}"
        )
    if cluster.most_minutes is not None and request.minutes > cluster.most_minutes:
        raise RequestError(
            f"time {request.minutes} min: partition {cluster.partition!r} lets a job run for "
            f"{cluster.most_minutes} min"
        )
    if not request.shared:
        check_shared(folder, cluster)
    _would_accept(request, cluster)
    _accounting()
    return cluster


def _partition(name: str | None) -> Cluster:
    rows = [line.split("|") for line in ask(
        "sinfo", "--noheader", "--Node", "--format", "%R|%P|%G|%n|%l"
    ).splitlines()]  # fmt: skip
    known = sorted({row[0] for row in rows})
    if name is None:
        name = next((row[0] for row in rows if row[1].endswith("*")), None)
        if name is None:
            raise RequestError(f"partition: there is no default; name one of {', '.join(known)}")
    if name not in known:
        raise RequestError(f"partition {name!r} is unknown; known: {', '.join(known)}")
    gpus, types, hosts = [], set(), set()
    limit = next(row[4] for row in rows if row[0] == name)
    most = minutes(limit) if limit[:1].isdecimal() else None
    for row in rows:
        if row[0] == name:
            found = re.findall(r"(?:^|,)gpu:(?:([^:,(]+):)?(\d+)", row[2])
            gpus.append(sum(int(count) for _, count in found))
            types |= {kind for kind, _ in found if kind}
            hosts.add(row[3])
    return Cluster(name, tuple(gpus), tuple(sorted(types)), tuple(sorted(hosts)), most)


def sbatch_options(request: Request, cluster: Cluster) -> dict[str, str | int]:
    """The request by the long names of sbatch's options."""
    found: dict[str, str | int] = {"partition": cluster.partition, "time": request.minutes}
    if request.gpus:
        found["gpus-per-node"] = request.gpus
    if request.cpus:
        found["cpus-per-task"] = request.cpus
    return {**found, **request.more}


def _would_accept(request: Request, cluster: Cluster) -> None:
    """Let Slurm itself look at the request: limits, accounts and all that only it knows."""
    options = [f"--{name}={value}" for name, value in sbatch_options(request, cluster).items()]
    tried = subprocess.run(
        ["sbatch", "--test-only", *options, "--wrap=true"],
        capture_output=True, text=True, check=False, timeout=COMMAND_S,
    )  # fmt: skip
    if tried.returncode != 0:
        reason = last_line(tried.stderr).removeprefix("allocation failure: ")
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


def file_system(folder: Path) -> str:
    """The type of the file system on which ``folder`` is, or would be made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    device = place.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        fields, _, kind = line.partition(" - ")
        if fields.split()[2] == number:
            return kind.split()[0]
    return "unknown"
