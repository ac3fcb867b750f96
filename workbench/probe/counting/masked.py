"""Attention FLOPs of pairs that a mask hides, exact, and windows that hide nothing."""

from collections import Counter
from collections.abc import Hashable
from fractions import Fraction

from workbench.lvlm.attention.costs import Pairs
from workbench.lvlm.place import Place
from workbench.lvlm.workload import Workload
from workbench.probe.counting.tallies import causal_attention
from workbench.probe.counting.tracker import Operator


def has_branches(workload: Workload) -> bool:
    """Whether pairs of some layer are told apart by the region that computes them."""
    return any(
        branches_of(workload, place, parts.window) is not None
        for parts, place, _ in workload.layers
    )


def branches_of(workload: Workload, place: Place, window: int | None) -> dict[str, Pairs] | None:
    """Pairs of a layer by the region that computes them, where some may lack a backward."""
    system, cell = workload.system, workload.cell
    branches = system.pairs_by_branch(place, window)
    if branches is None and (cell.frozen or cell.lora):
        branches = system.pairs_by_stream(place, window)
    return branches


def masked_flops(
    workload: Workload, operators: Counter[Operator], skipped: bool = False
) -> dict[int, int]:
    """Attention FLOPs of pairs that the mask hides, exact, by kind of layer.

    Only where the kernel skips them if ``skipped``.

    Backward and recomputation of a pair cost as many forwards as those of any other of a kind of
    place, so the masked share of its attention FLOPs is that of its pairs, each by its forward.
    """
    if workload.cell.pass_ == "decode":
        return {}  # A cache holds only what its token sees.
    kinds = place_kinds(workload)
    system, kernel = workload.system, workload.context.kernel
    dense: dict[int, Counter[str]] = {}
    masked: dict[int, dict[str, Fraction]] = {}
    for parts, place, count in workload.layers:
        kind, whole = kinds[place], system.pairs(place, parts.window)
        branches = branches_of(workload, place, parts.window) or {"": whole}
        share = system.skipped_share(kernel, place, parts.window) if skipped else 1
        computed = dense.setdefault(kind, Counter())
        hidden = masked.setdefault(kind, {})
        # Heads may differ by layer, and with them what a pair costs.
        weight = count * system.per_pair(parts, place)
        for branch, pairs in branches.items():
            computed[branch] += weight * pairs.dense
            more = weight * (pairs.dense - pairs.allowed) * Fraction(share)
            hidden[branch] = hidden.get(branch, Fraction(0)) + more
    flops_of: Counter[int] = Counter()
    for kind, regions in causal_attention(operators).items():
        together = regions if "" not in dense[kind] else {"": sum(regions.values())}
        for branch, attention in together.items():
            exact = attention * masked[kind][branch] / dense[kind][branch]
            assert exact.denominator == 1, "attention FLOPs are a multiple of the dense pairs"
            flops_of[kind] += int(exact)
    return dict(flops_of)


def place_kinds(workload: Workload) -> dict[Place, int]:
    """The kind of each place in a workload, numbered in the order in which they come first.

    Where pairs are told apart by region, what a pair of visual rows costs in a backward and which
    of them are hidden is told apart too: no text reads these rows behind the last keys of them.
    """
    numbers: dict[Hashable, int] = {}
    kinds: dict[Place, int] = {}
    apart = has_branches(workload)
    own = [place.index for parts, place, _ in workload.layers if not parts.takes_keys]
    for parts, place, _ in workload.layers:
        more = (parts.window, parts.head_dim, place.index >= max(own)) if apart else ()
        kinds[place] = numbers.setdefault((place.kind, *more), len(numbers))
    return kinds


def idle_windows(workload: Workload) -> tuple[int, ...]:
    """Windows under which every layer sees as much as without."""
    bites_of: dict[int, bool] = {}
    for parts, place, _ in workload.layers:
        if parts.window is not None:
            bites = workload.system.window_bites(place, parts.window)
            bites_of[parts.window] = bites_of.get(parts.window, False) or bites
    return tuple(sorted(window for window, bites in bites_of.items() if not bites))
