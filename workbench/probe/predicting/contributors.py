"""Everything that contributes to a prediction, one function each, in the order of their flags."""

from collections.abc import Callable
from typing import Any

from workbench.lvlm.caches.narrow import cache_flags
from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.loss import loss_flags
from workbench.lvlm.weights.packed import packed_flags
from workbench.probe.counting.allocator import assumptions
from workbench.probe.counting.trace import saved_bytes
from workbench.probe.predicting.collectives import collectives, shared_bytes
from workbench.probe.predicting.contribution import Contribution, Contributions, Metrics
from workbench.probe.predicting.deepspeed_estimate import compare_with_deepspeed
from workbench.probe.predicting.emulation import left_out
from workbench.probe.predicting.facts import (
    component_details,
    counts,
    model_facts,
    picture_details,
    utilisation,
)
from workbench.probe.predicting.roofline import table
from workbench.probe.predicting.subject import Subject
from workbench.probe.predicting.throughput import throughput
from workbench.probe.predicting.transfer import transfer

TORCH_KERNELS = ("flash", "efficient", "cudnn")
"""Kernels that are torch's own operators on a card, by their names there."""
Contributor = Callable[[Subject, Contributions], Contribution]
"""What it adds to the subject's record, given what those before it have added."""


def capacity(subject: Subject, _: Contributions) -> Contribution:
    """What the cell may allocate, and whether a smaller card is emulated."""
    size, cap = subject.capacity_bytes, subject.cell.memory_cap
    emulated = f"memory_cap: a card of {size:,} bytes is emulated ({cap})" if cap else None
    return Contribution(flags=[emulated] if emulated else [], details={"capacity_bytes": size})


def counted(subject: Subject, _: Contributions) -> Contribution:
    """What is counted in one pass: FLOPs, parameters, bytes; and FLOPs over bytes moved."""
    traced, metrics = subject.traced, counts(subject.traced)
    if traced.bytes_moved:
        flops = traced.flops - traced.flops_skipped
        metrics["arithmetic_intensity"] = flops / traced.bytes_moved
    return Contribution(metrics, details=picture_details(subject.cell, subject.pictures))


def host_copies(subject: Subject, _: Contributions) -> Contribution:
    """Activations that wait on the host: their bytes, and seconds on the link to it."""
    copies, flags = transfer(subject.traced, subject.target)
    if copies is None:
        return Contribution(flags=flags)
    return Contribution(
        {"offload_bytes": subject.traced.offload_bytes},
        flags,
        {"offload": copies.document()},
        copies.overlapped_with,
    )


def memory(subject: Subject, _: Contributions) -> Contribution:
    """The peak of allocated bytes by kind, and how the device's allocator fares."""
    footprint, peak, timeline = subject.memory, subject.peak, subject.traced.timeline
    states, outcome, roomy = peak.states, footprint.outcome, subject.roomy
    metrics: Metrics = {
        "peak_bytes": peak.total,
        "gradient_bytes": states.reduced if states else timeline.of_kind("gradients"),
        "activation_bytes": saved_bytes(subject.traced),
        "working_bytes": peak.by_kind.get("working", 0),
    }
    if roomy is not None:
        metrics["reserved_bytes"] = roomy.reserved_bytes
    flags = [] if footprint.plan is None else [footprint.plan.flag]
    if footprint.fits and outcome is not None and outcome.retries:
        flags.append(f"retries: the allocator has to free its cache {outcome.retries} times")
    room = footprint.capacity_bytes
    if not footprint.fits and room and footprint.peak.total <= room:
        flags.append(f"fragmented: {footprint.why_not()}")
    details = {
        "memory_by_kind": peak.by_kind,
        "assumed": assumptions(subject.target, subject.cell),
    }
    if outcome is not None:
        details["allocator"] = footprint.document(subject.cell.allocator)
    return Contribution(metrics, flags, details)


def operators(subject: Subject, _: Contributions) -> Contribution:
    """Seconds operator by operator, by component and by region; host copies run meanwhile."""
    work, times = subject.work, subject.times
    flags = subject.rates[1]
    kernel, on_card = subject.cell.kernel, subject.target.peak_flops is not None
    fused = f"_{kernel}_attention" if kernel in TORCH_KERNELS else "_attention"

    def name_of(operator: str) -> str:
        # Shapes go through the CPU's fused operator, where a card runs one of its own.
        return operator.replace("_flash_attention_for_cpu", fused) if on_card else operator

    details: dict[str, Any] = {
        "operators": table(
            work, times, lambda op: {"operator": name_of(op.name), "part": op.component}
        ),
        "modules": table(work, times, lambda op: {"module": op.region, "part": op.component}),
    }
    if subject.traced.params_by_component:
        details["parts"] = component_details(subject.traced, times)
    if times is not None:
        details["time"] = times.document()
    if subject.calibration is not None:
        file = subject.calibration_file
        own = {} if file is None else {"file": file}
        details["calibration"] = {**subject.calibration.provenance, **own}

    def overlapped_with(copies: float | None) -> float | None:
        return None if times is None else max(times.total, copies or 0.0)

    return Contribution({}, flags, details, overlapped_with)


def windows(subject: Subject, _: Contributions) -> Contribution:
    """Windows of the model that hide nothing from so short a sequence."""
    return Contribution(
        flags=[
            f"window: its {window:,} positions are no fewer than the sequence has, "
            "it hides nothing"
            for window in subject.traced.idle_windows
        ]
    )


def communication(subject: Subject, _: Contributions) -> Contribution:
    """What ranks send to each other: ZeRO's collectives, and shares of a sequence."""
    if subject.emulate is not None:
        return Contribution()
    cell, traced = subject.cell, subject.traced
    shared = shared_bytes(cell, traced)
    sizes, flags = collectives(cell, traced.parameters, shared, subject.target)
    if sizes is None:
        return Contribution(flags=flags)
    details = {"communication": sizes.document()}
    return Contribution({}, flags, details, sizes.overlapped_with)


def optimizer(subject: Subject, _: Contributions) -> Contribution:
    """The optimizer's states, as one rank holds them, and its step."""
    cell, states = subject.cell, subject.peak.states
    if states is None:
        return Contribution({"optimizer_bytes": 0})
    metrics: Metrics = {"weight_bytes": states.weights, "optimizer_bytes": states.optimizer}
    if states.step_flops:
        metrics["optimizer_flops"] = states.step_flops
    flags = []
    if states.step_bytes is not None:
        setting = f"optimizer {cell.optimizer}, master_weights {cell.master_weights}"
        flags.append(
            f"{setting}: its seconds are its bytes and FLOPs at the rates of other operators"
        )
        if subject.allocator.card and states.paged:
            flags.append(
                f"paged: {states.paged:,} bytes of optimizer states are in memory that the driver "
                "moves between card and host; peak_bytes leaves them out, and so does whether the "
                "cell fits"
            )
    compared = compare_with_deepspeed(cell, subject.traced.parameters, states)
    return Contribution(metrics, flags, {"states": compared})


def conventions(subject: Subject, _: Contributions) -> Contribution:
    """What is modelled as something else, or by a convention that a reader should know."""
    cell = subject.cell
    modelled = KERNELS[cell.kernel].traced_as()
    flags = [f"modelled: {modelled}"] if modelled else []
    flags += [*loss_flags(cell), *packed_flags(cell), *cache_flags(cell)]
    if cell.offload_optimizer:
        flags.append(
            "offload_optimizer: the step on the host, and gradients and weights on their way "
            "there and back, take no time in time_s"
        )
    flags += ["compile: predicted as the operators that eager mode runs"] if cell.compile else []
    return Contribution(flags=flags)


def speed(subject: Subject, so_far: Contributions) -> Contribution:
    """Seconds of an iteration, and what follows from them: MFU, samples and tokens a second."""
    cell, seconds = subject.cell, so_far.seconds
    rate = subject.target.peak(cell.dtype)
    metrics = {"time_s": seconds, **utilisation(subject.traced, seconds, rate)}
    flags = []
    if not seconds or not rate:
        reason = subject.target.sources["peak_flops"]
        flags += [f"{name}: {reason}" for name in ("mfu", "mfu_causal")]
    if cell.optimizes:
        metrics |= throughput(cell, seconds)
        if not seconds:
            flags += [f"{name}: needs time_s" for name in ("samples_per_s", "tokens_per_s")]
    return Contribution(metrics, flags)


def model(subject: Subject, _: Contributions) -> Contribution:
    """What a model that is read from files has of its own, and what is not counted of a model."""
    return Contribution(*model_facts(subject.cell, subject.traced.params))


def emulated(subject: Subject, so_far: Contributions) -> Contribution:
    """The metrics that the emulation of a rank does not have."""
    plan = subject.memory.plan
    missing = {} if plan is None else left_out(plan, so_far.metrics)
    flags = [f"{name}: {reason}" for name, reason in missing.items()]
    return Contribution(dict.fromkeys(missing), flags)


CONTRIBUTORS: tuple[Contributor, ...] = (
    capacity,
    counted,
    host_copies,
    memory,
    operators,
    windows,
    communication,
    optimizer,
    conventions,
    speed,
    model,
    emulated,
)
