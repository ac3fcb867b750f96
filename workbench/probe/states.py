"""Bytes of model states in training: weights, gradients, AdamW, under ZeRO 0 to 3.

Mixed precision as deepspeed's bf16 lays it out: weights and gradients in the cell's dtype, and
float32 master weights, first and second moments (12 bytes a parameter). A float32 cell needs no
master copy.
ZeRO's working buffers are deepspeed's defaults (docs/config-json, zero_optimization):
``reduce_bucket_size`` 5e8 elements, and for stage 3 ``stage3_max_live_parameters`` 1e9 gathered
elements; neither exceeds the parameters there are.
"""

from dataclasses import dataclass

from workbench.errors import RequestError
from workbench.spec import Cell

REDUCE_BUCKET = 500_000_000
MAX_LIVE = 1_000_000_000
ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class States:
    """What one rank holds throughout a step, in bytes."""

    weights: int
    gradients: int
    """Of a whole backward."""
    optimizer: int
    buffers: int
    """Gathered parameters and the gradient bucket of ZeRO."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.buffers


def has_optimizer(cell: Cell) -> bool:
    """Whether an iteration of the cell ends in an optimizer step."""
    return cell.pass_ == "train" and cell.scope != "layer"


def check_states(cell: Cell) -> None:
    """Raise RequestError for a sharding that cannot be."""
    if cell.zero == 0:
        return
    if not has_optimizer(cell):
        raise RequestError(
            f"zero {cell.zero}: only a train pass of scope decoder or lvlm has states to shard"
        )
    if cell.world_size == 1:
        raise RequestError(
            f"zero {cell.zero}: with world_size 1 there is nobody to share with and nothing is "
            "saved; give --world-size 2 or more, or --zero 0"
        )


def states(cell: Cell, params: int) -> States:
    """Model states of one rank; gradients that a whole backward leaves are counted here."""
    item, world = ITEM[cell.dtype], cell.world_size
    master = 4 * params if item < 4 else 0
    moments = 2 * max(4, item) * params
    shard = [1, 1, 1]  # Of weights, gradients, optimizer.
    if cell.zero >= 1:
        shard[2] = world
    if cell.zero >= 2:
        shard[1] = world
    if cell.zero >= 3:
        shard[0] = world
    bucket = item * min(params, REDUCE_BUCKET) if cell.zero else 0
    gathered = item * min(params, MAX_LIVE) if cell.zero == 3 else 0
    return States(
        weights=-(-item * params // shard[0]),
        gradients=-(-item * params // shard[1]),
        optimizer=-(-(master + moments) // shard[2]),
        buffers=bucket + gathered,
    )
