"""What Slurm says of itself: its partitions, and whatever else is asked."""

import re
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from workbench.vocabulary.errors import Failure, RequestError

COMMAND_S = 60.0
_UP = ("allocated", "completing", "idle", "mixed", "planned", "reserved")
"""States of nodes that take jobs, now or when others have ended."""


class Node(NamedTuple):
    """A node of the partition."""

    host: str
    gpus: Mapping[str, int]
    """How many by kind; those whose kind Slurm was not told have an empty one."""
    is_up: bool = True

    def count(self, kind: str | None = None) -> int:
        """GPUs of the node, of one kind or of all."""
        return sum(self.gpus.values()) if kind is None else self.gpus.get(kind, 0)


class Cluster(NamedTuple):
    """What the partition has."""

    partition: str
    nodes: tuple[Node, ...]
    most_minutes: int | None = None
    """The longest time limit of a job; None where there is none."""
    most_jobs: int = 1001
    """In one array; Slurm's own default."""

    @property
    def gpu_types(self) -> tuple[str, ...]:
        """The kinds of GPUs that Slurm was told of."""
        return tuple(sorted({kind for node in self.nodes for kind in node.gpus if kind}))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The machines of the nodes."""
        return tuple(sorted({node.host for node in self.nodes}))

    def room(self, gpus: int, kind: str | None = None) -> int:
        """How many jobs with so many GPUs run at once, on the nodes that are up if any is."""
        nodes = [node for node in self.nodes if node.is_up] or self.nodes
        return sum(node.count(kind) // gpus if gpus else 1 for node in nodes)


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """A command of Slurm that has ended, well or not; Failure where it does not end."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=COMMAND_S,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"engine slurm: {command[0]} is silent for {COMMAND_S:g} s") from None


def ask(*command: str) -> str:
    """What a command of Slurm prints; Failure with its last line where it fails."""
    process = run(*command)
    if process.returncode != 0:
        raise Failure(f"engine slurm: {last_line(process.stderr) or f'{command[0]} fails'}")
    return process.stdout


def last_line(text: str) -> str:
    """The last line that says something: not where to read about the options."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Try ")]
    return next(iter(reversed(telling or lines)), "")


def minutes(text: str) -> int:
    """A time limit as Slurm writes it, in minutes: ``90``, ``1:30:00``, ``2-00:00:00``."""
    match = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?", text.strip())
    if match is not None:
        days, first, second, third = (int(part or 0) for part in match.groups())
        # Without days, "90" is minutes and "5:30" minutes and seconds; with them hours come first.
        hours_first = match[1] is not None or match[4] is not None
        seconds = 3600 * first + 60 * second + third if hours_first else 60 * first + second
        total = -(-(86_400 * days + seconds) // 60)
        if total >= 1:
            return total
    raise RequestError(f"time {text!r}: minutes, HH:MM:SS or D-HH:MM:SS, and at least a minute")


def partition(name: str | None) -> Cluster:
    rows = [
        line.split("|")
        for line in ask(
            "sinfo", "--noheader", "--Node", "--format", "%R|%P|%G|%n|%l|%T"
        ).splitlines()
    ]
    names = sorted({row[0] for row in rows})
    if name is None:
        name = next((row[0] for row in rows if row[1].endswith("*")), None)
        if name is None:
            raise RequestError(f"partition: there is no default; name one of {', '.join(names)}")
    if name not in names:
        raise RequestError(f"partition {name!r} is unknown; known: {', '.join(names)}")
    mine = [row for row in rows if row[0] == name]
    limit = mine[0][4]
    return Cluster(
        name,
        tuple(Node(row[3], _gpus(row[2]), row[5].startswith(_UP)) for row in mine),
        minutes(limit) if limit[:1].isdecimal() else None,
        _most_jobs(),
    )


def _most_jobs() -> int:
    match = re.search(
        r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE
    )
    return int(match[1]) if match else Cluster._field_defaults["most_jobs"]


def _gpus(gres: str) -> dict[str, int]:
    """``gpu:h100:4(S:0-1),gpu:a100:2`` by kind."""
    counts: dict[str, int] = {}
    for kind, count in re.findall(r"(?:^|,)gpu:(?:([^:,(]+):)?(\d+)", gres):
        counts[kind] = counts.get(kind, 0) + int(count)
    return counts
