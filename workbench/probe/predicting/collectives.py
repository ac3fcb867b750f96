"""What the ranks of a training step send each other, and how long their links take for it.

The collectives are those of deepspeed's release 0.19; a test counts them on two ranks. Stages 1
and 2 reduce whole gradients (``use_multi_rank_bucket_allreduce``), not a part to each rank as in
the ZeRO paper (arXiv 1910.02054, section 7). A ring of N ranks sends (N - 1)/N of what it gathers
or scatters, twice that of what it reduces to all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.lvlm.sharing import copies_text
from workbench.probe.counting.states import (
    ITEM,
    MASTER,
    MAX_LIVE,
    PERSISTENT,
    Parameter,
    flat_shards,
    share,
    trained_groups,
)
from workbench.probe.counting.trace import Trace
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import Device

AWAITED = ("all_to_all", "text_gather")
"""What is computed next needs these."""


@dataclass(frozen=True)
class Collectives:
    """Bytes that one rank sends in an iteration, and the rate of its link to the others."""

    sent: dict[str, int]
    """By kind: all_reduce, reduce_scatter, all_gather; and of ranks that share a sequence:
    all_to_all, ring, text_gather."""
    rate: float | None
    """Bytes/s in one direction; None where no source states one."""

    @property
    def seconds(self) -> float | None:
        """At the link's full rate."""
        return None if self.rate is None else sum(self.sent.values()) / self.rate

    def overlapped_with(self, computing: float | None) -> float | None:
        """Seconds of the iteration.

        An attention waits for its all-to-all, or for other ranks' parts of its text; a step of a
        ring, and all of ZeRO's, may run beside the computing.
        """
        if computing is None or self.seconds is None or self.rate is None:
            return computing
        awaited = sum(self.sent.get(kind, 0) for kind in AWAITED)
        return max(computing + awaited / self.rate, self.seconds)

    def document(self) -> dict[str, Any]:
        """For the record's details."""
        return {"sent_bytes": self.sent, "link_bytes_per_s": self.rate, "time_s": self.seconds}


def collectives(
    cell: Cell, parameters: Sequence[Parameter], shared: Mapping[str, int], target: Device
) -> tuple[Collectives | None, list[str]]:
    """What the cell's ranks exchange on a device, and what is to be said of it.

    ``shared`` is what those send that share a sequence, by kind.
    """
    if cell.world_size == 1:
        return None, []
    sizes = {**sent_bytes(cell, parameters), **shared}
    sending = Collectives(sizes, target.link_bandwidth_bytes_per_s)
    if sending.rate is None:
        reason = target.sources["link_bandwidth_bytes_per_s"]
        return sending, [f"communication: collectives take no time in time_s: {reason}"]
    also = "and a ring's steps " if "ring" in sizes else ""
    flag = (
        f"communication: {sending.seconds:.3g} s by rings on links of {sending.rate / 1e9:g} GB/s "
        f"between the cards of one machine; ZeRO's {also}are assumed to run beside the computing, "
        "and a network between machines is slower"
    )
    return sending, [flag]


def shared_bytes(cell: Cell, traced: Trace) -> dict[str, int]:
    """What one rank sends in an iteration to those that share its sequence, by kind."""
    ring = "text_gather" if copies_text(cell) else "ring"
    sizes = {"all_to_all": traced.all_to_all_bytes, ring: traced.ring_bytes}
    return {kind: size for kind, size in sizes.items() if size is not None}


def sent_bytes(cell: Cell, parameters: Sequence[Parameter]) -> dict[str, int]:
    """What ZeRO's collectives make one rank send in an iteration, by kind."""
    world, item, num_microbatches = cell.world_size, ITEM[cell.dtype], cell.accumulate
    # ``seq_parallel_communication_data_type``: gradients travel in float32.
    reduced = MASTER if cell.sharing > 1 else item
    groups = trained_groups(parameters)
    trained = sum(map(sum, groups))
    if cell.zero < 3:
        # Stages 0 and 1 reduce what all micro-batches have added up.
        rounds = num_microbatches if cell.zero == 2 else 1
        sizes = {"all_reduce": reduced * 2 * rounds * _ring(trained, world)}
        if cell.zero:
            gathered = world * sum(flat_shards(groups, world))
            sizes["all_gather"] = item * _ring(gathered, world)
        return sizes
    whole = {True: 0, False: 0}
    again = 0
    for parameter in parameters:
        size = world * share(parameter.numel, world)
        persists = parameter.numel <= PERSISTENT
        whole[persists] += size
        # A frozen tower has no backward.
        if not persists and (parameter.trained or parameter.component != "tower"):
            again += size
    # A backward finds what the forward gathered last; a step gathers the persistent ones anew.
    gathered = whole[True] + num_microbatches * (whole[False] + max(0, again - MAX_LIVE))
    scattered = num_microbatches * sum(world * share(n, world) for group in groups for n in group)
    return {
        "reduce_scatter": reduced * _ring(scattered, world),
        "all_gather": item * _ring(gathered, world),
    }


def _ring(size: int, ranks: int) -> int:
    return -(-(ranks - 1) * size // ranks)
