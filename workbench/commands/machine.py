"""``list`` and ``doctor``: what the workbench knows by name, and what this machine has."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.commands.completion import completes
from workbench.commands.sweeps import DEFAULT_STORE
from workbench.vocabulary.errors import unknown_name

Rows = list[dict[str, Any]]


def _models(_: Path) -> Rows:
    from workbench.lvlm.models import MODELS

    return [{"name": n, "family": m.family, "source": m.source} for n, m in MODELS.items()]


def _attentions(_: Path) -> Rows:
    from workbench.lvlm.attention import SYSTEMS
    from workbench.vocabulary.systems import label

    return [
        {"name": name, "label": label("attention", name), "meaning": _meaning(name, system)}
        for name, system in SYSTEMS.items()
    ]


def _kernels(_: Path) -> Rows:
    from workbench.lvlm.kernels import KERNELS

    return [
        {"name": name, "transformers": kernel.hf, "meaning": _meaning(name, kernel)}
        for name, kernel in KERNELS.items()
    ]


def _meaning(name: str, entry: object) -> str:
    """What a system or a kernel is: the first sentence of its file."""
    first = (sys.modules[type(entry).__module__].__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(first.removeprefix(f"``{name}``: ").replace("``", "").split())


def _devices(_: Path) -> Rows:
    from workbench.vocabulary.devices import DEVICES

    return [
        {
            "name": name,
            "label": device.label,
            "bfloat16_flops": device.peak("bfloat16"),
            "bandwidth_bytes_per_s": device.bandwidth_bytes_per_s,
            "capacity_bytes": device.capacity_bytes,
        }
        for name, device in DEVICES.items()
    ]


def _metrics(_: Path) -> Rows:
    from workbench.vocabulary.metrics import METRICS

    return [{"name": name, **metric._asdict()} for name, metric in METRICS.items()]


def _runs(store: Path) -> Rows:
    from workbench.store import Store

    with Store.open(store) as opened_store:
        return [
            {
                "id": run.id,
                "sweep": run.sweep,
                "started_at": run.started_at,
                "records": run.num_records,
                "machine": run.environment.gpu or run.environment.cpu,
            }
            for run in opened_store.runs()
        ]


KINDS: dict[str, Callable[[Path], Rows]] = {
    "models": _models,
    "attentions": _attentions,
    "kernels": _kernels,
    "devices": _devices,
    "metrics": _metrics,
    "runs": _runs,
}


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="|".join(KINDS), help="What to list.", autocompletion=completes(also=KINDS)
        ),
    ],
    store: Annotated[Path, typer.Option(help="The store of the runs.")] = DEFAULT_STORE,
    json_: AsJson = False,
) -> None:
    """List the names that other commands take, or the runs of a store."""
    if kind not in KINDS:
        raise unknown_name("list", kind, KINDS)
    with show.waiting(f"looking up {kind}"):
        rows = KINDS[kind](store)
    if json_:
        show.emit(rows)
    elif rows:
        hidden = HIDDEN if show.columns() is None else HIDDEN - {"meaning"}
        names = [name for name in rows[0] if name not in hidden]
        head = [HEADS.get(name, name.replace("_", " ")) for name in names]
        show.table(head, [tuple(_word(name, row[name]) for name in names) for row in rows])


UNITS = {"bfloat16_flops": "FLOP/s", "bandwidth_bytes_per_s": "B/s", "capacity_bytes": "B"}
"""Columns of numbers that are told in human units; --json has them whole."""
HIDDEN = frozenset(("sensor", "sweep", "meaning"))
"""Columns that only --json has: how NVML is asked, what a run's id begins with, and what a name
means, which a terminal shows as well; a pipe's columns are what programs have always read."""
HEADS = {
    "bfloat16_flops": "bfloat16",
    "bandwidth_bytes_per_s": "bandwidth",
    "capacity_bytes": "capacity",
}


def _word(name: str, value: Any) -> str:
    if value is None:
        return "n/a"
    if name in UNITS:
        return show.amount(value, UNITS[name])
    if name == "started_at":
        return str(value)[:16].replace("T", " ")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def doctor(json_: AsJson = False) -> None:
    """Say what this machine has, and what each missing thing costs."""
    with show.waiting("looking at this machine"):
        from workbench.probe.doctor import examine

        findings = examine()
    if json_:
        show.emit([finding._asdict() for finding in findings])
        return
    missing = [finding.name for finding in findings if not finding.ok]
    show.say(f"missing here: {', '.join(missing)}" if missing else "nothing is missing here")
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        name = f"{'ok' if finding.ok else '--'}  {finding.name.ljust(width)}"
        show.say(f"{name}  {finding.detail}", indent=width + 6)
        if not finding.ok:
            costs = f"costs: {finding.cost_if_missing}; {finding.fix}"
            show.say(f"{' ' * len(name)}  {costs}", indent=width + 6)
