"""A workload traced on fake tensors: FLOPs by convention, allocations, operators. Nothing is computed."""

from collections import Counter
from dataclasses import dataclass

from torch._subclasses import FakeTensorMode

from workbench.errors import RequestError
from workbench.lvlm.build import Workload, build
from workbench.probe.tracker import Operator, Tracker, total
from workbench.spec import Cell


@dataclass(frozen=True)
class Trace:
    """One iteration of a cell. FLOPs follow the conventions of ``record.METRICS``."""

    flops: int
    flops_causal: int
    model_flops: int
    params: int
    peak_bytes: int
    by_kind: dict[str, int]
    """Bytes alive at the peak: weights, inputs, activations, gradients, working."""
    weight_bytes: int
    gradient_bytes: int
    activation_bytes: int
    operators: Counter[Operator]

    @property
    def bytes_moved(self) -> int:
        return sum(op.bytes * count for op, count in self.operators.items())


def trace(cell: Cell, granule: int = 1) -> Trace:
    """Trace one iteration of ``cell``; ``granule`` is the allocator's rounding in bytes.

    Raises RequestError and Unsupported as ``build`` does.
    """
    try:
        with FakeTensorMode():
            workload = build(cell, "cpu")
            tracker = run(workload, granule)
            gradients = [p.grad for p in workload.module.parameters() if p.grad is not None]
            tracker.label("gradients", gradients)
            input_gradients = [x.grad for x in workload.inputs if x.grad is not None]
            tracker.label("input gradients", input_gradients)
            peak, moment = tracker.peak()
            flops = total(tracker.operators)
            end = tracker.marks.get("forward")
            return Trace(
                flops=flops,
                flops_causal=flops - masked_flops(workload, tracker),
                model_flops=forward_flops(workload) * (3 if cell.pass_ == "train" else 1),
                params=workload.num_parameters,
                peak_bytes=peak,
                by_kind=tracker.by_kind(moment),
                weight_bytes=sum(b.bytes for b in tracker.blocks if b.kind == "weights"),
                gradient_bytes=sum(b.bytes for b in tracker.blocks if b.kind == "gradients"),
                activation_bytes=(
                    0 if end is None else tracker.by_kind(end).get("activations", 0)
                ),
                operators=tracker.operators,
            )
    except (OverflowError, RuntimeError) as error:
        if "overflow" in str(error).lower() or "too large" in str(error).lower():
            raise RequestError(
                f"num_visual {cell.num_visual}: a tensor of this cell has more than 2**63 bytes"
            ) from None
        raise


def run(workload: Workload, granule: int = 1) -> Tracker:
    """One iteration under a tracker that knows what was there before."""
    tracker = Tracker(granule)
    weights = [*workload.module.parameters()]
    tracker.hold("weights", weights)
    tracker.hold("inputs", (t for t in workload.held() if not any(t is w for w in weights)))
    with tracker, workload.guard():
        outputs = workload.run_forward()
        if workload.cell.pass_ == "train":
            tracker.mark("forward")
            workload.run_backward(outputs)
    return tracker


def masked_flops(workload: Workload, tracker: Tracker) -> int:
    """Attention FLOPs of pairs that the mask hides, exact.

    Every pair of a workload costs the same in forward, backward and recomputation, so the masked share
    of attention FLOPs is the masked share of pairs.
    """
    attention = total(tracker.operators, attention_only=True)
    if not attention:
        return 0
    dense = allowed = 0
    for parts, count in workload.layers:
        pairs = workload.system.pairs(workload.context.layout, parts.window)
        dense, allowed = dense + count * pairs.dense, allowed + count * pairs.allowed
    hidden, rest = divmod(attention * (dense - allowed), dense)
    assert rest == 0, "attention FLOPs are a multiple of the dense pairs"
    return hidden


def forward_flops(workload: Workload) -> int:
    """The closed form of one forward; a backward without recomputation is twice that."""
    cell = workload.cell
    return sum(
        count * workload.system.forward_flops(parts, cell) for parts, count in workload.layers
    )
