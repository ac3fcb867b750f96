"""Bytes of model states in training: weights, gradients, AdamW, under deepspeed's ZeRO 0 to 3.

One process holds the weights and gradients in the cell's dtype and, below float32, float32 master
weights beside AdamW's two moments. Several run under deepspeed, whose layout this follows as its
release 0.19 has it (runtime/fp16/unfused_optimizer.py, runtime/zero/stage_1_and_2.py, stage3.py):

- Stages 1 and 2 flatten the parameters of each learning rate, padded to twice the ranks; each
  rank keeps a float32 copy of its part, for float32 weights too. A stage-2 rank keeps the whole
  gradient of every parameter that its part touches.
- Stage 3 divides each parameter by itself, rounding up, and keeps those of at most
  ``stage3_param_persistence_threshold`` elements whole as well, but lets them go while it steps.
- Working buffers are the defaults of its configuration: ``reduce_bucket_size`` 5e8 elements and,
  for stage 3, ``stage3_max_live_parameters`` 1e9 gathered elements, both at most the parameters.
  Stage 3 keeps the bucket, and copies it while the ranks reduce it, which interleaves their parts
  (or holds the one gradient that is larger);
  stages 1 and 2 reduce it where it is, and let it go after each backward.
- A step flattens and widens the gradients of one group at a time: of a learning rate in stages 1
  and 2, in stage 3 of a sub-group (``sub_group_size``). Before, each gradient's norm is taken of a
  float64 copy.
- Offload keeps on the host, beside the optimizer's states, float32 gradients and copies of what
  crosses the link; stages 1 and 2 have a buffer of the largest parameter on either side.
- One process gathers nothing: its share of each parameter is the parameter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from workbench.lvlm.optimizers import OPTIMIZERS, Stepped
from workbench.lvlm.optimizers.mixed_precision import has_master, stepped
from workbench.vocabulary.cell import Cell

REDUCE_BUCKET = 500_000_000
MAX_LIVE = 1_000_000_000
PERSISTENT = 100_000
ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
MASTER = 4
"""Bytes of a float32 element."""
NORM = 8
"""Bytes of a float64 element."""


class Parameter(NamedTuple):
    """One parameter of a model, in the order in which the module has them."""

    component: str
    """tower, adapter or decoder: each has a learning rate of its own."""
    numel: int
    trained: bool = True
    size: int | None = None
    """Bytes of the parameter, where they are not those of the cell's dtype."""
    shape: tuple[int, ...] = ()
    """Shape of a parameter that is trained; empty where nobody asks."""
    matrix: bool = False
    """Whether it is a matrix of a layer: no embedding, no LM head."""
    reached: bool = True
    """Whether a gradient reaches it where one process trains: not the tower's without an image."""

    @property
    def stepped_on(self) -> bool:
        """Whether one process steps on it; its optimizer has states of all that are trained."""
        return self.trained and self.reached

    def bytes(self, cell: Cell) -> int:
        """Bytes that the parameter takes."""
        return ITEM[cell.dtype] * self.numel if self.size is None else self.size

    def width(self, cell: Cell) -> int:
        """Bytes of an element of one that is trained."""
        return ITEM[cell.dtype] if self.size is None else self.size // self.numel

    def stepped(self, cell: Cell) -> Stepped:
        """What the cell's optimizer meets of it."""
        return stepped(cell, self.shape or (self.numel,), self.width(cell), self.matrix)


@dataclass(frozen=True)
class States:
    """What one rank, the fullest, holds throughout a step, in bytes."""

    weights: int
    gradients: int
    """Gradients of a whole backward."""
    reduced: int
    """What is left of the gradients when ranks have reduced them: the optimizer steps on it."""
    optimizer: int
    buffers: int
    """Gathered parameters and the gradient bucket of ZeRO."""
    stepping: int = 0
    """Only while the optimizer steps: copies of gradients, flat and wide."""
    on_host: bool = False
    """Whether reduced gradients and the optimizer's states are on the host."""
    persistent: int = 0
    """Of the weights, whole copies of small ones that are not there while the optimizer steps."""
    kept_buffers: int = 0
    """Of the buffers, what is there while the optimizer steps."""
    reducing: int = 0
    """Only while the last bucket is reduced: stage 3 copies what is in it once more."""
    host: int = 0
    """On the host beside reduced gradients and the optimizer's states."""
    paged: int = 0
    """Of the optimizer's states, what a card's driver moves between card and host: not of torch's
    allocator."""
    step_bytes: int | None = None
    """What a step of another optimizer than AdamW reads and writes on a card."""
    step_flops: int = 0
    """FLOPs of the matmuls of a step."""

    @property
    def total(self) -> int:
        """On the device."""
        size = self.weights + self.buffers
        return size if self.on_host else size + self.gradients + self.optimizer


def states(cell: Cell, parameters: Sequence[Parameter]) -> States:
    """Model states of the fullest rank; gradients that a whole backward leaves count here."""
    item, world = ITEM[cell.dtype], cell.world_size
    whole = sum(p.numel for p in parameters)
    groups = trained_groups(parameters)
    trained = sum(map(sum, groups))
    if cell.zero == 0:
        several = world > 1
        gradients = sum(p.bytes(cell) for p in parameters if p.stepped_on)
        rule = OPTIMIZERS[cell.optimizer]
        return States(
            weights=sum(p.bytes(cell) for p in parameters),
            gradients=gradients,
            reduced=gradients,
            optimizer=sum(master_sizes(cell, parameters)) + sum(state_sizes(cell, parameters)),
            paged=sum(state_sizes(cell, parameters)) - sum(resident_sizes(cell, parameters)),
            step_bytes=step_bytes(cell, parameters),
            step_flops=sum(rule.flops(p.stepped(cell)) for p in parameters if p.stepped_on),
            buffers=item * min(trained, REDUCE_BUCKET) if several else 0,
            stepping=MASTER * trained if several and item < MASTER else 0,
        )
    if cell.zero == 3:
        return _third(cell, parameters, groups)
    return _first_or_second(cell, whole, groups)


def _first_or_second(cell: Cell, whole: int, groups: Sequence[Sequence[int]]) -> States:
    """Stages 1 and 2, of ``whole`` parameters in all and those of each learning rate."""
    item, world = ITEM[cell.dtype], cell.world_size
    trained, shards = sum(map(sum, groups)), flat_shards(groups, world)
    widest = max(
        sum(touched(group, shard, rank) for group, shard in zip(groups, shards, strict=True))
        for rank in range(world)
    )
    bucket, largest = item * min(trained, REDUCE_BUCKET), item * max(map(max, groups))
    weights = item * (whole - trained + world * sum(shards))
    optimizer = 3 * MASTER * sum(shards)
    if cell.offload_optimizer:
        return States(
            weights=weights,
            gradients=MASTER * sum(shards),
            reduced=MASTER * sum(shards),
            optimizer=optimizer,
            # Stage 2 sends each gradient away as it comes: one is on its way at a time.
            buffers=bucket + largest * cell.zero,
            on_host=True,
            kept_buffers=largest,
            host=item * sum(shards) + largest,
        )
    part = max(
        overlap(group, shard, rank)
        for group, shard in zip(groups, shards, strict=True)
        for rank in range(world)
    )
    return States(
        weights=weights,
        gradients=item * (trained if cell.zero == 1 else widest),
        reduced=item * widest,
        optimizer=optimizer,
        buffers=bucket + (item * widest if cell.zero == 1 else 0),
        stepping=widened(item, max(shards), part),
    )


def _third(cell: Cell, parameters: Sequence[Parameter], groups: Sequence[Sequence[int]]) -> States:
    """Stage 3, of all parameters and the sizes of those of each learning rate."""
    item, world, trained = ITEM[cell.dtype], cell.world_size, sum(map(sum, groups))
    shares = [[share(n, world) for n in group] for group in groups]
    own = sum(map(sum, shares))
    persistent = gathered = 0
    if world > 1:
        persistent = sum(
            world * share(p.numel, world) for p in parameters if p.numel <= PERSISTENT
        )
        gathered = min(max(0, sum(p.numel for p in parameters) - persistent), MAX_LIVE)
    bucket, copied = (size * min(trained, REDUCE_BUCKET) for size in (item, item))
    if cell.sharing > 1 and item < MASTER:
        # Gradients travel in float32 where a sequence was shared: widened, then interleaved.
        copied *= 2 * MASTER // item
    # Or one gradient that does not fit the bucket, such as a vocabulary's.
    copied = max(copied, item * max(map(max, groups)))
    offload = cell.offload_optimizer
    largest = max(size for group in shares for size in sub_groups(group, cell.sub_group_size))
    return States(
        weights=item * (sum(share(p.numel, world) for p in parameters) + persistent),
        gradients=item * own,
        reduced=item * own,
        optimizer=3 * MASTER * own,
        buffers=bucket + item * gathered,
        reducing=copied,
        stepping=0 if offload else widened(item, largest, max(map(max, shares))),
        on_host=offload,
        persistent=item * persistent,
        kept_buffers=bucket,
        host=MASTER * own if offload else 0,
    )


def step_bytes(cell: Cell, parameters: Sequence[Parameter]) -> int | None:
    """What one process's step reads and writes; None of AdamW on master weights.

    States and weights are read and written once, gradients read, and temporaries written and read.
    """
    if cell.steps_plainly:
        return None
    rule, changed = OPTIMIZERS[cell.optimizer], [p for p in parameters if p.stepped_on]
    met = [p.stepped(cell) for p in changed]
    weights = sum(p.bytes(cell) for p in changed)
    masters = sum(master_sizes(cell, changed))
    own = sum(state_sizes(cell, changed))
    passing = masters + sum(sum(rule.temporaries(one, card=True).sizes) for one in met)
    return 2 * (own + masters + weights + passing) + weights


def master_sizes(cell: Cell, parameters: Sequence[Parameter]) -> list[int]:
    """Bytes of each float32 master weight of one process."""
    trained = (p for p in parameters if p.trained and has_master(cell, p.width(cell)))
    return [MASTER * p.numel for p in trained]


def state_sizes(cell: Cell, parameters: Sequence[Parameter]) -> list[int]:
    """Bytes of each tensor that one process's optimizer holds beside weights and masters."""
    return _state_sizes(cell, parameters, paged=True)


def resident_sizes(cell: Cell, parameters: Sequence[Parameter]) -> list[int]:
    """Bytes of each tensor of ``state_sizes`` that a card's allocator knows."""
    return _state_sizes(cell, parameters, paged=False)


def _state_sizes(cell: Cell, parameters: Sequence[Parameter], paged: bool) -> list[int]:
    rule = OPTIMIZERS[cell.optimizer]
    met = [p.stepped(cell) for p in parameters if p.trained]
    sizes = [size for one in met for size in rule.states(one)[0 if paged else rule.paged(one) :]]
    shared = max((rule.shared(one) for one in met), default=0)
    return [*sizes, shared] if shared else sizes


def widened(item: int, group: int, part: int) -> int:
    """Bytes of gradients that a step copies: of a ``group`` of elements, flat and then float32.

    Each gradient's norm before takes a float64 copy of it: of ``part`` elements, the most.
    """
    return max((item + (MASTER if item < MASTER else 0)) * group, NORM * part)


def sub_groups(shares: Sequence[int], size: int) -> list[int]:
    """Elements of each sub-group of stage 3: one is full once it holds ``size`` or more."""
    if size >= sum(shares):
        return [sum(shares)]
    groups = [0]
    for numel in shares:
        if groups[-1] >= size:
            groups.append(0)
        groups[-1] += numel
    return groups


def trained_groups(parameters: Sequence[Parameter]) -> list[list[int]]:
    """Elements of each trained parameter, by component."""
    groups: dict[str, list[int]] = {}
    for parameter in parameters:
        if parameter.trained:
            groups.setdefault(parameter.component, []).append(parameter.numel)
    return list(groups.values())


def touched(group: Sequence[int], shard: int, rank: int) -> int:
    """Elements of the parameters that overlap one rank's part of the flattened group."""
    first, end = rank * shard, (rank + 1) * shard
    ends = accumulate(group)
    return sum(n for n, stop in zip(group, ends, strict=True) if stop > first and stop - n < end)


def overlap(group: Sequence[int], shard: int, rank: int) -> int:
    """The most elements of one parameter in one rank's part of the flattened group."""
    first, end = rank * shard, (rank + 1) * shard
    ends = accumulate(group)
    return max(min(stop, end) - max(stop - n, first) for n, stop in zip(group, ends, strict=True))


def flat_shards(groups: Sequence[Sequence[int]], ranks: int) -> list[int]:
    """Elements of one rank's part of each flattened group, in stages 1 and 2."""
    return [share(sum(group), 2 * ranks) * 2 for group in groups]


def share(numel: int, ranks: int) -> int:
    """Elements of one rank's part of a parameter in stage 3."""
    return -(-numel // ranks)
