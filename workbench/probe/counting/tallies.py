"""Sums over the operators that a trace saw."""

from collections import Counter
from collections.abc import Iterable

from workbench.probe.counting.tracker import Call, Operator


def tally(calls: Iterable[Call]) -> Counter[Operator]:
    """How often each operator ran."""
    counts: Counter[Operator] = Counter()
    for call in calls:
        counts[call.operator] += call.times
    return counts


def total(operators: Counter[Operator]) -> int:
    """FLOPs of all calls."""
    return sum(op.flops * count for op, count in operators.items())


def causal_attention(operators: Counter[Operator]) -> dict[int, dict[str, int]]:
    """FLOPs over the decoder's query-key pairs by kind of layer (``Operator.place``) and region.

    A tower's attention hides none of its own.
    """
    by_place: dict[int, dict[str, int]] = {}
    for op, count in operators.items():
        if op.attention and op.component == "decoder":
            regions = by_place.setdefault(op.place, {})
            regions[op.region] = regions.get(op.region, 0) + op.flops * count
    return by_place
