"""Bytes of model states in training: weights, gradients, AdamW, under deepspeed's ZeRO 0 to 3.

One process holds the weights and gradients in the cell's dtype and, below float32, float32 master
weights beside AdamW's two moments. Several run under deepspeed, whose layout this follows as its
release 0.19 has it (runtime/fp16/unfused_optimizer.py, runtime/zero/stage_1_and_2.py, stage3.py):

- Stages 1 and 2 flatten the parameters of each learning rate, padded to twice the ranks; each
  rank keeps a float32 copy of its part, for float32 weights too. A stage-2 rank keeps the whole
  gradient of every parameter that its part touches.
- Stage 3 divides each parameter by itself, rounding up, and keeps those of at most
  ``stage3_param_persistence_threshold`` elements whole as well.
- Working buffers are the defaults of its configuration: ``reduce_bucket_size`` 5e8 elements and,
  for stage 3, ``stage3_max_live_parameters`` 1e9 gathered elements, both at most the parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from workbench.errors import RequestError
from workbench.spec import Cell

REDUCE_BUCKET = 500_000_000
MAX_LIVE = 1_000_000_000
PERSISTENT = 100_000
ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
MASTER = 4
"""Bytes of a float32 element."""


class Parameter(NamedTuple):
    """One parameter of a model, in the order in which the module has them."""

    part: str
    """tower, adapter or decoder: each has a learning rate of its own."""
    numel: int
    trained: bool = True


@dataclass(frozen=True)
class States:
    """What one rank, the fullest, holds throughout a step, in bytes."""

    weights: int
    gradients: int
    """Of a whole backward."""
    reduced: int
    """What is left of them once the ranks have reduced them: the optimizer steps on it."""
    optimizer: int
    buffers: int
    """Gathered parameters and the gradient bucket of ZeRO."""
    stepping: int = 0
    """Only while the optimizer steps: gradients widened to float32."""
    on_host: bool = False
    """Whether reduced gradients and the optimizer's states are on the host."""

    @property
    def total(self) -> int:
        """On the device."""
        held = self.weights + self.buffers
        return held if self.on_host else held + self.gradients + self.optimizer


def check_states(cell: Cell) -> None:
    """Raise RequestError for a sharding that cannot be."""
    if cell.world_size > 1 and cell.dtype in ("float64", "float16") and cell.optimizes:
        raise RequestError(
            f"dtype {cell.dtype}: training on several ranks runs in bfloat16 or float32"
        )
    if cell.zero == 0:
        return
    if not cell.optimizes:
        raise RequestError(
            f"zero {cell.zero}: only a train pass of scope decoder or lvlm has states to shard"
        )
    if cell.world_size == 1:
        raise RequestError(
            f"zero {cell.zero}: with world_size 1 there is nobody to share with and nothing is "
            "saved; give --world-size 2 or more, or --zero 0"
        )


def states(cell: Cell, parameters: Sequence[Parameter]) -> States:
    """Model states of the fullest rank; gradients that a whole backward leaves count here."""
    item, world = ITEM[cell.dtype], cell.world_size
    whole = sum(p.numel for p in parameters)
    groups = trained_groups(parameters)
    trained = sum(map(sum, groups))
    if cell.zero == 0:
        wider = max(MASTER, item)
        copies = 2 if item >= MASTER else 3
        several = world > 1
        return States(
            weights=item * whole,
            gradients=item * trained,
            reduced=item * trained,
            optimizer=copies * wider * trained,
            buffers=item * min(trained, REDUCE_BUCKET) if several else 0,
            stepping=MASTER * trained if several and item < MASTER else 0,
        )
    bucket = item * min(trained, REDUCE_BUCKET)
    if cell.zero == 3:
        shards = [sum(share(n, world) for n in group) for group in groups]
        kept = sum(world * share(p.numel, world) for p in parameters if p.numel <= PERSISTENT)
        return States(
            weights=item * (sum(share(p.numel, world) for p in parameters) + kept),
            gradients=item * sum(shards),
            reduced=item * sum(shards),
            optimizer=3 * MASTER * sum(shards),
            buffers=bucket + item * min(max(0, whole - kept), MAX_LIVE),
            stepping=0 if cell.offload_optimizer else (item + MASTER) * max(shards),
            on_host=cell.offload_optimizer,
        )
    shards = flat_shards(groups, world)
    held = max(
        sum(touched(group, shard, rank) for group, shard in zip(groups, shards, strict=True))
        for rank in range(world)
    )
    gradients, reduced = item * (trained if cell.zero == 1 else held), item * held
    if cell.offload_optimizer:
        gradients, reduced, held = *[MASTER * sum(shards)] * 2, 0
    return States(
        weights=item * (whole - trained + world * sum(shards)),
        gradients=gradients,
        reduced=reduced,
        optimizer=3 * MASTER * sum(shards),
        buffers=bucket + (item * held if cell.zero == 1 else 0),
        stepping=0 if cell.offload_optimizer else (item + MASTER) * max(shards),
        on_host=cell.offload_optimizer,
    )


def trained_groups(parameters: Sequence[Parameter]) -> list[list[int]]:
    """Elements of each trained parameter, by part."""
    groups: dict[str, list[int]] = {}
    for parameter in parameters:
        if parameter.trained:
            groups.setdefault(parameter.part, []).append(parameter.numel)
    return list(groups.values())


def touched(group: Sequence[int], shard: int, rank: int) -> int:
    """Elements of the parameters that overlap one rank's part of the flattened group."""
    first, end = rank * shard, (rank + 1) * shard
    ends = accumulate(group)
    return sum(n for n, stop in zip(group, ends, strict=True) if stop > first and stop - n < end)


def flat_shards(groups: Sequence[Sequence[int]], ranks: int) -> list[int]:
    """Elements of one rank's part of each flattened group, in stages 1 and 2."""
    return [share(sum(group), 2 * ranks) * 2 for group in groups]


def share(numel: int, ranks: int) -> int:
    """Elements of one rank's part of a parameter in stage 3."""
    return -(-numel // ranks)
