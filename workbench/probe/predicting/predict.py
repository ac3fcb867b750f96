"""A cell without its device: FLOPs, memory and roofline time from one pass over fake tensors."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.loss import loss_flags
from workbench.lvlm.models import MODELS, Resolved, resolve
from workbench.lvlm.narrow_cache import cache_flags
from workbench.lvlm.packed import packed_flags
from workbench.lvlm.pictures import look
from workbench.lvlm.quantized import quantization_flags, quantized_weights
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.allocator import Allocator, allocator_of, assumptions
from workbench.probe.counting.states import States, check_states
from workbench.probe.counting.trace import Trace, saved_bytes, trace
from workbench.probe.machine.environment import environment
from workbench.probe.predicting.collectives import collectives, shared_bytes
from workbench.probe.predicting.deepspeed_estimate import compare_with_deepspeed
from workbench.probe.predicting.emulation import check_emulation, left_out
from workbench.probe.predicting.footprint import (
    Footprint,
    check_allocator,
    emulated_footprint,
    footprint,
)
from workbench.probe.predicting.roofline import Times, by_part, predict_times, rates, table, works
from workbench.probe.predicting.throughput import throughput
from workbench.probe.predicting.transfer import transfer
from workbench.vocabulary.calibration import calibration_for
from workbench.vocabulary.cell import SUB_GROUP_SIZE, Cell
from workbench.vocabulary.devices import DEVICES, Device, device
from workbench.vocabulary.errors import RequestError, Unsupported, unknown_name
from workbench.vocabulary.fields import Layers
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.record import Record, Status


def predict(
    cell: Cell,
    device_name: str,
    calibration: str | None = None,
    pictures: Pictures | None = None,
    emulate: Layers | None = None,
) -> Record:
    """Predict one cell on a named device; ``calibration`` is a file, or ``none``.

    With ``emulate`` its memory is that of one process which emulates a rank of the cell, so many
    of whose layers run. Without a calibration, the one that comes with the workbench is used, if
    there is one.

    A cell beyond the device's capacity has status ``oom`` and keeps its metrics. Raises
    RequestError for unknown names; a kernel that cannot serve the family gives status
    ``unsupported``.
    """
    target = device(device_name)
    check_states(cell)
    check_allocator(cell, target)
    if emulate is not None:
        check_emulation(cell, emulate)
    known = calibration_for(target.name, calibration)
    started, clock = datetime.now(UTC), time.monotonic()
    base: dict[str, Any] = {
        "cell": cell,
        "source": "predicted",
        "device": target.name,
        "environment": environment("cpu"),
        "started_at": started.isoformat(timespec="seconds"),
    }
    capacity, flags = capacity_of(cell, target)
    try:
        traced = _traced(cell, allocator_of(target), pictures)
    except Unsupported as error:
        return Record(
            **base,
            status=Status.UNSUPPORTED,
            error=str(error),
            flags=[f"unsupported: {error}"],
            duration_s=time.monotonic() - clock,
        )
    moved, said = transfer(traced, target)
    flags += said
    memory = (
        footprint(cell, traced, allocator_of(target), capacity)
        if emulate is None
        else emulated_footprint(cell, allocator_of(target), capacity, emulate)
    )
    flags += memory_flags(memory)
    # A cell that does not fit keeps its metrics: those of a card that is large enough.
    roomy = memory.on_a_large_card(cell.allocator)
    peak = memory.peak if roomy is None else memory.peak.rounded_to(roomy.allocated_bytes)
    work = works(cell, traced)
    speed, said = rates(cell, work, target, known)
    flags += said
    found = None if speed is None else predict_times(work, speed, peak.states)
    seconds = None if found is None else found.total
    if moved is not None:
        seconds = moved.overlapped_with(seconds)
    flags += [
        f"window: its {window:,} positions are no fewer than the sequence has, it hides nothing"
        for window in traced.idle_windows
    ]
    shared = None
    if emulate is None:
        shared, said = collectives(cell, traced.parameters, shared_bytes(cell, traced), target)
        flags += said
    if shared is not None:
        seconds = shared.overlapped_with(seconds)
    flags += optimizer_flags(cell, peak.states, allocator_of(target).card)
    modelled = KERNELS[cell.kernel].traced_as()
    flags += [f"modelled: {modelled}"] if modelled else []
    flags += [*loss_flags(cell), *packed_flags(cell), *cache_flags(cell)]
    if cell.offload_optimizer:
        flags.append(
            "offload_optimizer: the step on the host, and gradients and weights on their way "
            "there and back, take no time in time_s"
        )
    flags += ["compile: predicted as the operators that eager mode runs"] if cell.compile else []
    rate = target.peak(cell.dtype)
    if not seconds or not rate:
        reason = target.sources["peak_flops"]
        flags += [f"{name}: {reason}" for name in ("mfu", "mfu_causal")]
    if not seconds and cell.optimizes:
        flags += [f"{name}: needs time_s" for name in ("samples_per_s", "tokens_per_s")]
    quantized, said = model_facts(cell, traced.params)
    flags += said
    metrics: dict[str, int | float | None] = {
        **counts(traced),
        **intensity(traced),
        **({"weight_bytes": peak.states.weights} if peak.states else {}),
        "peak_bytes": peak.total,
        "gradient_bytes": (
            peak.states.reduced if peak.states else traced.timeline.of_kind("gradients")
        ),
        "activation_bytes": saved_bytes(traced),
        "working_bytes": peak.by_kind.get("working", 0),
        "time_s": seconds,
        **utilisation(traced, seconds, rate),
        **(throughput(cell, seconds) if cell.optimizes else {}),
        "optimizer_bytes": peak.states.optimizer if peak.states else 0,
        **(
            {"optimizer_flops": peak.states.step_flops}
            if peak.states and peak.states.step_flops
            else {}
        ),
        **({} if roomy is None else {"reserved_bytes": roomy.reserved_bytes}),
        **({} if moved is None else {"offload_bytes": traced.offload_bytes}),
        **quantized,
    }
    missing = {} if memory.plan is None else left_out(memory.plan, metrics)
    return Record(
        **base,
        status=Status.OK if memory.fits else Status.OOM,
        error=None if memory.fits else memory.why_not(),
        metrics={**metrics, **dict.fromkeys(missing)},
        flags=[*flags, *(f"{name}: {reason}" for name, reason in missing.items())],
        details={
            "memory_by_kind": peak.by_kind,
            "capacity_bytes": capacity,
            "assumed": assumptions(target, cell),
        }
        | ({} if memory.outcome is None else {"allocator": memory.document(cell.allocator)})
        | shown(cell, pictures)
        | ({} if moved is None else {"offload": moved.document()})
        | ({} if shared is None else {"communication": shared.document()})
        | (
            {"states": compare_with_deepspeed(cell, traced.parameters, peak.states)}
            if peak.states is not None
            else {}
        )
        | ({"parts": parts_of(traced, found)} if traced.params_by_part else {})
        | ({} if known is None else {"calibration": known.provenance})
        | {
            "operators": table(work, found, lambda op: {"operator": op.name, "part": op.part}),
            "modules": table(work, found, lambda op: {"module": op.piece, "part": op.part}),
        }
        | ({} if found is None else {"time": found.document()}),
        duration_s=time.monotonic() - clock,
    )


def optimizer_flags(cell: Cell, held: States | None, card: bool) -> list[str]:
    """What a reader should know of another optimizer than AdamW."""
    if held is None or held.step_bytes is None:
        return []
    named = f"optimizer {cell.optimizer}, master_weights {cell.master_weights}"
    flags = [f"{named}: its seconds are its bytes and FLOPs at the rates of other operators"]
    if card and held.paged:
        flags.append(
            f"paged: {held.paged:,} bytes of optimizer states are in memory that the driver moves "
            "between card and host; peak_bytes leaves them out, and so does whether the cell fits"
        )
    return flags


def memory_flags(memory: Footprint) -> list[str]:
    """What a reader of the predicted memory should know."""
    flags = [] if memory.plan is None else [memory.plan.flag]
    if memory.fits and memory.outcome is not None and memory.outcome.retries:
        flags.append(
            f"retries: the allocator has to free its cache {memory.outcome.retries} times"
        )
    if not memory.fits and memory.capacity_bytes and memory.peak.total <= memory.capacity_bytes:
        flags.append(f"fragmented: {memory.why_not()}")
    return flags


UNSHARED = {
    "zero": 0,
    "world_size": 1,
    "offload_optimizer": False,
    "sub_group_size": SUB_GROUP_SIZE,
    "memory_cap": None,
    "allocator": "default",
}
"""Fields that say who holds which states, and change nothing in a trace."""


def _traced(cell: Cell, allocator: Allocator, pictures: Pictures | None) -> Trace:
    """The trace, kept for the next cell that differs only in who holds which states.

    Not that of files, which may be others by then.
    """
    if pictures is not None or cell.sharing > 1 or cell.model not in MODELS:
        return trace(cell, allocator, pieces=True, pictures=pictures)
    return _kept(cell.replace(**UNSHARED), allocator)


def forget() -> None:
    """Drop the traces that are kept: the next prediction takes what a first one takes."""
    _kept.cache_clear()


@lru_cache(maxsize=16)
def _kept(cell: Cell, allocator: Allocator) -> Trace:
    return trace(cell, allocator, pieces=True)


def shown(cell: Cell, pictures: Pictures | None) -> dict[str, Any]:
    """Which files the cell shows and what became of them, for a record's details."""
    if pictures is None:
        return {}
    tower = tower_of(resolve(cell.model), cell.tower, pictures.limits)
    asked = pictures.model_dump(mode="json", exclude_defaults=True, exclude={"images", "video"})
    facts = {"pictures": [*look(tower, pictures).facts]} if pictures.has_files else {}
    return {**facts, "pictures_asked": asked}


def model_flags(cell: Cell) -> list[str]:
    """Flags of a model that is read from files, and of its tower."""
    model = resolve(cell.model)
    towers = tower_of(model, cell.tower).flags if cell.scope == "lvlm" else ()
    added = []
    if model.family.deepstack and cell.scope == "decoder" and cell.pass_ != "decode":
        added = ["deepstack: features of the tower, which enter at scope lvlm, are not added"]
    added += expert_flags(model, cell)
    return [*model.flags, *towers, *added, *quantization_flags(model, cell)]


def expert_flags(model: Resolved, cell: Cell) -> list[str]:
    """What is counted of a model with experts, whose routing only data decides."""
    count = getattr(model.config, "num_experts", None)
    if not count:
        return []
    sent = "tokens were spread over all evenly"
    if cell.experts_skew:
        sent = "all tokens were sent to the same, the fewest bytes; on one card FLOPs and memory "
        sent += "are those of any routing"
    # peft and bitsandbytes take linear layers; the matrices of experts are stacked.
    left_alone = [name for name in ("lora", "weights_dtype") if getattr(cell, name) is not None]
    return [
        *(
            f"{name}: experts are no linear layers, and are left as they are"
            for name in left_alone
        ),
        f"experts: FLOPs are of the {model.config.num_experts_per_tok} of {count} that a token "
        f"meets, bytes held of all; bytes_moved as if {sent}",
    ]


def model_facts(cell: Cell, params: int | None) -> tuple[dict[str, int | float | None], list[str]]:
    """Metrics of a model that is read from files, its flags, and why a metric is null."""
    quantized, why = quantized_weights(resolve(cell.model), cell, params)
    return quantized, [*model_flags(cell), *why]


def counts(traced: Trace) -> dict[str, int | float | None]:
    """The metrics that are counted, not measured: the same for a measured and a predicted cell."""
    return {
        "flops": traced.flops,
        "flops_causal": traced.flops_causal,
        "model_flops": traced.model_flops,
        "params": traced.params,
        **(
            {}
            if traced.active_params == traced.params
            else {"active_params": traced.active_params}
        ),
        "weight_bytes": traced.timeline.of_kind("weights"),
        "bytes_moved": traced.bytes_moved,
        **(
            {}
            if traced.all_to_all_bytes is None
            else {"all_to_all_bytes": traced.all_to_all_bytes}
        ),
        **({} if traced.ring_bytes is None else {"ring_bytes": traced.ring_bytes}),
        **({} if traced.kv_cache_bytes is None else {"kv_cache_bytes": traced.kv_cache_bytes}),
    }


def intensity(traced: Trace) -> dict[str, int | float | None]:
    """FLOPs that the kernel does, over the bytes that its operators move."""
    if not traced.bytes_moved:
        return {}
    done = traced.flops - traced.flops_skipped
    return {"arithmetic_intensity": done / traced.bytes_moved}


def utilisation(
    traced: Trace, seconds: float | None, rate: float | None
) -> dict[str, int | float | None]:
    """MFU by both counts; None without a time or a peak in FLOP/s."""
    if not seconds or not rate:
        return {"mfu": None, "mfu_causal": None}
    return {
        "mfu": traced.model_flops / seconds / rate,
        "mfu_causal": traced.model_flops_causal / seconds / rate,
    }


def parts_of(traced: Trace, found: Times | None) -> dict[str, dict[str, int | float]]:
    """Parameters, FLOPs and seconds of tower, adapter and decoder, if there are any."""
    seconds = {} if found is None else by_part(found)
    parts: dict[str, dict[str, int | float]] = {}
    for part, params in traced.params_by_part.items():
        flops = sum(op.flops * n for op, n in traced.operators.items() if op.part == part)
        parts[part] = {"params": params, "flops": flops}
        if found is not None:
            parts[part]["time_s"] = seconds.get(part, 0.0)
    return parts


def capacity_of(cell: Cell, target: Device) -> tuple[int | None, list[str]]:
    """Bytes that the cell may allocate, and a flag where a smaller card is emulated."""
    capacity = target.capacity_bytes
    if cell.memory_cap is None:
        return capacity, []
    cap = cap_bytes(cell.memory_cap)
    smaller = cap if capacity is None else min(cap, capacity)
    return smaller, [f"memory_cap: a card of {smaller:,} bytes is emulated ({cell.memory_cap})"]


def fixed_capacity(cell: Cell, target: Device) -> int:
    """Bytes that the cell may allocate; RequestError for a device that does not fix them."""
    capacity, _ = capacity_of(cell, target)
    if capacity is None:
        raise RequestError(
            f"device {target.name!r}: has no fixed capacity; give --memory-cap BYTES"
        )
    return capacity


def cap_bytes(cap: int | str) -> int:
    """A memory cap in bytes: a number, or the capacity of a device entry."""
    if isinstance(cap, int):
        return cap
    if cap not in DEVICES:
        raise unknown_name("memory_cap", cap, [*DEVICES, "BYTES"])
    capacity = DEVICES[cap].capacity_bytes
    if capacity is None:
        raise RequestError(f"memory_cap {cap!r}: this device has no fixed capacity; give bytes")
    return capacity
