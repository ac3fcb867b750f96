"""Stores and records built by code, for the tests of everything that reads results.

FLOPs follow the closed forms of ATTENTION.md (a Mistral 7B layer); seconds and bytes are invented,
smooth, and shaped like real ones: nothing here is a measurement.
"""

import random
from pathlib import Path
from typing import get_args

from workbench.store import Store
from workbench.vocabulary.cell import FIELDS, Cell, make_cell
from workbench.vocabulary.record import Environment, Record, Status
from workbench.vocabulary.sweep import Grid, Sweep

LAPTOP = Environment(
    host="laptop",
    os="Linux 6.1",
    cpu="Example CPU",
    num_threads=2,
    memory_bytes=16 * 2**30,
    python="3.11.2",
    torch="2.13.0",
    transformers="5.23.0",
    workbench="0.1.0",
    commit="0123abc",
)
NODE = LAPTOP.model_copy(
    update={"host": "node", "gpu": "NVIDIA H200", "num_gpus": 1, "gpu_memory_bytes": 139 * 2**30}
)
SPEED = {"cpu": 1e11, "h100-80gb": 5e14, "NVIDIA H200": 5e14}
LIMIT = {"cpu": 12 * 2**30, "h100-80gb": 78 * 2**30, "NVIDIA H200": 139 * 2**30}
HOSTILE = "<script>alert(1)</script> | `x` *b* [l](javascript:alert(1)) <b>&amp; %{y} $1$"


def flops(cell: Cell) -> int:
    """Dense FLOPs of one Mistral 7B layer, forward."""
    visual, text = cell.num_visual, cell.num_text
    if cell.attention == "himix":
        return 436_207_616 * text + 16_384 * text * (text + visual)
    if cell.attention == "s_attn":
        total = visual + text
        return 436_207_616 * total + 16_384 * total**2
    return 402_653_184 * visual + 436_207_616 * text + 16_384 * text * (text + visual)


def record(
    source: str = "measured",
    device: str = "cpu",
    status: Status | None = None,
    error: str | None = None,
    samples: int = 3,
    **fields: object,
) -> Record:
    """One record. Without ``status`` it is OOM where its bytes exceed the device's limit."""
    cell = make_cell(**{"kernel": "sdpa", **fields})
    times = 3 if cell.pass_ == "train" else 1
    tokens = cell.num_visual + cell.num_text
    quadratic = cell.kernel == "eager" and cell.attention == "s_attn"
    peak = 436_224_000 * times + 60_000 * times * tokens + quadratic * 190 * times * tokens**2
    status = status or (Status.OOM if peak > LIMIT[device] else Status.OK)
    metrics: dict[str, int | float | None] = {}
    values: list[float] = []
    flags: list[str] = []
    if status is Status.OK or (status is Status.OOM and source == "predicted"):
        noise = random.Random(cell.key + source)
        base = times * flops(cell) * (1.6 if quadratic else 1) / SPEED[device] + 2e-5
        measured = source == "measured"
        values = [base * noise.uniform(0.96, 1.05) for _ in range(samples if measured else 0)]
        middle = sorted(values)[len(values) // 2] if measured else base
        metrics = {
            "flops": times * flops(cell),
            "model_flops": times * flops(cell),
            "params": 218_112_000,
            "peak_bytes": peak,
            "weight_bytes": 436_224_000,
            "time_s": middle,
            "activation_bytes": 20_000 * tokens if times == 3 else None,
            "gradient_bytes": 436_224_000 if times == 3 else None,
            "bytes_moved": 2 * peak,
            "mfu": None,
        }
        if measured:
            metrics |= {"time_q1_s": min(values), "time_q3_s": max(values)}
            metrics["num_samples"] = samples
            flags = ["few_samples: 3 samples, 10 asked for"] if samples < 10 else []
        flags.append("mfu: the device has no datasheet peak")
    if status is Status.OOM and error is None and source == "measured":
        error = f"allocation of 8.00 GiB beyond the limit of {LIMIT[device]} bytes"
    return Record(
        cell=cell,
        source=source,
        device=device,
        status=status,
        metrics=metrics,
        flags=flags,
        samples={"time_s": values} if values else {},
        error=error,
        environment=NODE if device == "NVIDIA H200" else LAPTOP,
        started_at="2025-01-01T12:00:00Z",
        duration_s=1.0,
        details=details(source, peak, LIMIT[device])
        | (spent(cell, source, metrics["time_s"] or 0.0) if metrics else {}),
    )


def details(source: str, peak: int, limit: int) -> dict[str, object]:
    """What stands beside the metrics of a record."""
    if source == "measured":
        return {"memory_limit_bytes": limit}
    kinds = {"weights": 436_224_000, "inputs": 1_000_000}
    kinds["working"] = peak - sum(kinds.values())
    return {"memory_by_kind": kinds, "capacity_bytes": limit}


def spent(cell: Cell, source: str, seconds: float) -> dict[str, object]:
    """An iteration by part and operator: a trace where it was measured, else the roofline's."""
    visual = ("V2V", "T2V") if cell.attention == "d_attn" else ("attention",)
    shares = dict.fromkeys(visual, 0.3 / len(visual)) | {
        "projections": 0.2,
        "MLP": 0.45,
        "norms": 0.04,
        "other": 0.01,
    }
    rows = [
        {
            "part": name,
            "time_s": seconds * share,
            "flops": int(1e9 * share),
            "bytes": 1_000_000,
            "calls": 4,
        }
        for name, share in shares.items()
    ]
    names = {"projections": "mm", "MLP": "mm", "norms": "rms_norm"}
    if source == "predicted":
        modules = [{**row, "module": row["part"], "bound": "compute"} for row in rows]
        listed = [{**row, "operator": names.get(str(row["part"]), "mul")} for row in modules]
        return {"operators": listed, "modules": modules}
    operators = [
        {"operator": name, "time_s": seconds * share, "flops": None, "bytes": None, "calls": 3}
        for name, share in (("mm", 0.65), ("scaled_dot_product", 0.3), ("other", 0.05))
    ]
    return {
        "trace": {
            "file": f"{cell.key}.pt.trace.json",
            "clock": "cpu",
            "wall_s": seconds,
            "parts": rows,
            "operators": operators,
        }
    }


SYSTEMS = (
    {"attention": "s_attn", "kernel": "eager"},
    {"attention": "s_attn", "kernel": "sdpa"},
    {"attention": "d_attn", "kernel": "sdpa"},
)
MEASURED_AT = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
PREDICTED_AT = (256, 1024, 4096, 16384, 65536, 131072)


def like_default() -> list[Record]:
    """What the default sweep leaves: measured on a CPU, predicted for an H100, with real OOMs."""
    found = []
    for system in SYSTEMS:
        for pass_, stop in (("forward", 8192), ("train", 1024)):
            cells = {**system, "pass": pass_}
            found += [record(**cells, num_visual=v) for v in MEASURED_AT if v <= stop]
            found += [
                record("predicted", "h100-80gb", **cells, num_visual=v) for v in PREDICTED_AT
            ]
    return found


def all_statuses() -> list[Record]:
    """A few cells that ran and one of every other status, with the reasons."""
    found = [record(**system, num_visual=v) for system in SYSTEMS for v in (64, 256, 1024, 4096)]
    ends = {
        Status.OOM: None,
        Status.KILLED: "the kernel ended the worker (signal 9)",
        Status.TIMEOUT: "no answer within 900 s",
        Status.ERROR: "RuntimeError: boom",
        Status.UNSUPPORTED: "kernel sdpa cannot serve gemma-2-9b: soft-capping",
    }
    for step, (status, error) in enumerate(ends.items()):
        visual = 8192 + 1024 * step
        found.append(record(status=status, error=error, **SYSTEMS[0], num_visual=visual))
    return found


def hostile() -> list[Record]:
    """Names, errors and flags that try to become markup."""
    cells = {"model": HOSTILE, "attention": HOSTILE}
    found = [record(**cells, num_visual=v) for v in (64, 128, 256, 512)]
    trace = {
        "file": "../../etc/passwd",
        "parts": [{"part": HOSTILE, "time_s": 1.0}, 7, None],
        "operators": {"mm": 1},
    }
    found[0] = found[0].model_copy(update={"flags": [f"note: {HOSTILE}"]})
    found[3] = found[3].model_copy(update={"details": {"trace": trace}})
    found.append(record(status=Status.OOM, error=HOSTILE, **cells, num_visual=1024))
    return found


LINKS = "see https://evil.example/x, www.evil.example or a@evil.example"


def links() -> list[Record]:
    """Names and errors that try to become links."""
    cells = {"model": LINKS, "attention": LINKS}
    found = [record(**cells, num_visual=v) for v in (64, 128, 256, 512)]
    found[0] = found[0].model_copy(update={"flags": [f"note: {LINKS}"]})
    return [*found, record(status=Status.OOM, error=LINKS, **cells, num_visual=1024)]


def two_runs() -> list[Record]:
    """The same cells before and after a change that made D-Attn a fifth slower."""
    found = []
    for visual in (256, 1024, 4096):
        for system in SYSTEMS:
            found.append(record(**system, num_visual=visual, samples=12))
    return found


def slower(before: Record) -> Record:
    """The record with every second a fifth longer, where it is D-Attn's."""
    factor = 1.2 if before.cell.attention == "d_attn" else 1.0
    seconds = {
        name: value * factor
        for name, value in before.metrics.items()
        if name.startswith("time") and value is not None
    }
    samples = {n: [value * factor for value in held] for n, held in before.samples.items()}
    return before.model_copy(update={"metrics": before.metrics | seconds, "samples": samples})


def three_systems() -> list[Record]:
    """HiMix beside S-Attn and D-Attn on a whole decoder."""
    systems = (*SYSTEMS[1:], {"attention": "himix", "kernel": "sdpa"})
    return [
        record("predicted", "h100-80gb", **system, scope="decoder", logits="text", num_visual=v)
        for system in systems
        for v in (256, 1024, 4096)
    ]


def paper() -> list[Record]:
    """Whole training steps as in the paper's tables, measured and predicted."""
    return [
        record(
            source,
            device,
            attention=attention,
            scope="decoder",
            samples=12,
            num_visual=visual,
            checkpoint=True,
            **{"pass": "train"},
        )
        for attention in ("s_attn", "d_attn", "d_attn_biased", "d_attn_cascade", "d_attn_tanh")
        for source, device in (("predicted", "h100-80gb"), ("measured", "NVIDIA H200"))
        for visual in (9_000, 18_000, 74_000)
    ]


CONTENTS = {
    "empty": list,
    "one_cell": lambda: [record(attention="d_attn", num_visual=256)],
    "like_default": like_default,
    "all_statuses": all_statuses,
    "measured_only": lambda: [r for r in like_default() if r.source == "measured"],
    "predicted_only": lambda: [r for r in like_default() if r.source == "predicted"],
    "nothing_ran": lambda: [record(status=Status.KILLED, error="signal 9", num_visual=64)],
    "hostile": hostile,
    "links": links,
    "two_runs": two_runs,
    "later": lambda: [slower(one) for one in two_runs()],
    "three_systems": three_systems,
    "paper": paper,
}


BROKEN = ("damaged", "not_a_store")


def build(path: Path, kind: str) -> Path:
    """Write the golden store ``kind`` to ``path``; 'damaged', 'not_a_store' are broken files."""
    if kind == "not_a_store":
        path.write_bytes(b"this is a photograph of a cat, honest\n" * 100)
        return path
    if kind == "damaged":
        build(path, "like_default")
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 3])
        return path
    records = CONTENTS[kind]()
    sweep = Sweep(name=kind, grids=(Grid(visual=MEASURED_AT),))
    with Store.open(path, mode="w") as store:
        if kind != "empty":
            run = store.begin_run(sweep.name, sweep.model_dump(mode="json", by_alias=True), LAPTOP)
            store.add_many(run, records)
        if kind == "two_runs":
            run = store.begin_run(sweep.name, sweep.model_dump(mode="json", by_alias=True), NODE)
            store.add_many(run, [slower(one) for one in records])
    return path


BASES = (
    {
        "scope": "lvlm",
        "pass": "train",
        "num_visual": 729,
        "checkpoint": True,
        "zero": 2,
        "world_size": 2,
        "logits": "text",
    },
    {"num_visual": 729},
    {"scope": "decoder", "pass": "train", "num_visual": 729},
    {"scope": "decoder", "pass": "train", "num_visual": 729, "zero": 3, "world_size": 2},
    {"scope": "decoder", "num_visual": 729, "reduce": "pool"},
    {"scope": "decoder", "pass": "train", "num_visual": 729, "world_size": 2, "ring": 2},
)
"""Cells of which one or another lets any field have a value of its own."""


def _words(annotation: object) -> list[str]:
    """The words of a field's type, however deep they stand in it."""
    if isinstance(annotation, str):
        return [annotation]
    return [word for inner in get_args(annotation) for word in _words(inner)]


def another(name: str) -> tuple[Cell, Cell]:
    """Two cells that differ in one field, whichever it is, by its public name."""
    words = _words(FIELDS[name].annotation)
    candidates = [*words, "all", True, 2, 3, 10**8, "other", "T,V,T", "side=3", "r=8"]
    for base in (make_cell(**fields) for fields in BASES):
        for value in candidates:
            try:
                changed = base.replace(**{name: value})
            except ValueError:
                continue
            if changed.document()[name] != base.document()[name]:
                return base, changed
    raise AssertionError(f"{name}: no candidate is a value of it; add one")
