"""Which fields of a cell exclude each other, whatever model and system it names."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.vocabulary.cell import Cell

SUB_GROUP_SIZE = 1_000_000_000
"""deepspeed's default of ``sub_group_size``, in elements."""


def check_agreement(cell: "Cell") -> None:
    """Raise RequestError, with fields and values, where fields of a cell exclude each other.

    All that do are told at once.
    """
    faults = list(_disagreements(cell))
    if faults:
        raise RequestError("; ".join(faults))


def _disagreements(cell: "Cell") -> Iterator[str]:
    if cell.num_visual + cell.num_text == 0:
        yield "num_visual and num_text are both 0: there is no token to compute"
    if cell.scope != "layer" and cell.pass_ == "train" and cell.num_text == 0:
        yield "num_text 0: the loss of a training step needs at least 1 text token"
    if cell.loss_rows == "all" and not cell.optimizes:
        yield "loss_rows all: only a train pass of scope decoder or lvlm has a loss"
    if cell.loss_rows == "all" and cell.logits == "text":
        yield ("loss_rows all: needs logits 'all'; under 'text' the LM head has text rows alone")
    if cell.checkpoint_every is not None and not cell.checkpoint:
        yield "checkpoint_every: needs checkpoint as well"
    if cell.layer is not None and cell.scope != "layer":
        yield f"layer {cell.layer}: only scope 'layer' builds a single layer"
    if cell.tower is not None and cell.scope != "lvlm":
        yield f"tower {cell.tower}: only scope 'lvlm' has a tower"
    if cell.accumulate > 1 and not cell.optimizes:
        yield (
            f"accumulate {cell.accumulate}: only a train pass of scope decoder or lvlm ends "
            "in an optimizer step"
        )
    if cell.frozen and not (cell.optimizes and cell.scope == "lvlm"):
        yield f"frozen {cell.frozen}: only training at scope lvlm has such parts"
    if cell.cache and cell.pass_ != "forward":
        yield f"cache: a forward pass keeps keys and values, not {cell.pass_}"
    if cell.experts_skew and cell.weights is not None:
        yield f"experts_skew: the router of {cell.weights!r:.60} sends as it learnt"
    if cell.cache_dtype is not None:
        if cell.pass_ == "train":
            yield f"cache_dtype {cell.cache_dtype}: training keeps no cache"
        if cell.dtype == "float64" and cell.cache_dtype != "bfloat16":
            yield (f"cache_dtype {cell.cache_dtype}: is widened to at most float32, not float64")
    if cell.weights_dtype is not None:
        yield from _packed(cell, cell.weights_dtype)
    if cell.lora is not None:
        yield from _lora(cell)
    if not cell.steps_plainly:
        yield from _optimizer(cell)
    if cell.sub_group_size != SUB_GROUP_SIZE and cell.zero != 3:
        yield f"sub_group_size {cell.sub_group_size}: only ZeRO 3 has sub-groups"
    if cell.offload_optimizer and not cell.zero:
        yield "offload_optimizer: needs ZeRO; give --zero 1, 2 or 3"
    if cell.world_size % cell.sharing:
        axes = {name: getattr(cell, name) for name in ("ulysses", "ring")}
        words = " × ".join(f"{name} {count}" for name, count in axes.items() if count > 1)
        yield (
            f"{words}: does not divide world_size {cell.world_size}; the ranks "
            "that share a sequence are among those that share the states"
        )
    if cell.ring_order != "zigzag" and cell.ring == 1:
        yield f"ring_order {cell.ring_order}: needs a ring; give --ring N"


def _optimizer(cell: "Cell") -> Iterator[str]:
    for name in ("optimizer", "master_weights"):
        value = getattr(cell, name)
        if value == type(cell).model_fields[name].default:
            continue
        if not cell.optimizes:
            yield (
                f"{name} {value}: only a train pass of scope decoder or lvlm ends in an "
                "optimizer step"
            )
        if cell.under_deepspeed:
            yield (
                f"{name} {value}: under deepspeed, so under ZeRO or on several ranks, AdamW "
                "steps on float32 parts of all weights; leave it out"
            )
    if cell.master_weights != "float32" and cell.dtype != "bfloat16":
        yield (
            f"master_weights {cell.master_weights}: says that bfloat16 weights have no wider "
            f"copy; those of dtype {cell.dtype} are not bfloat16"
        )


def _packed(cell: "Cell", scheme: str) -> Iterator[str]:
    if cell.scope == "layer":
        yield f"weights_dtype {scheme}: of a whole decoder; use scope decoder or lvlm"
    if cell.pass_ == "train" and cell.lora is None:
        yield f"weights_dtype {scheme}: such weights cannot be trained; add lora"
    if cell.pass_ == "decode":
        yield f"weights_dtype {scheme}: kernels of a decode step are not modelled"
    if cell.under_deepspeed:
        yield f"weights_dtype {scheme}: one process alone holds such weights here"
    if cell.fold:
        yield f"fold: needs the output projection as numbers, not as {scheme}"
    if cell.dtype == "float64":
        yield f"weights_dtype {scheme}: is widened to at most float32, not float64"


def _lora(cell: "Cell") -> Iterator[str]:
    if not cell.optimizes:
        yield "lora: only a train pass of scope decoder or lvlm trains adapters"
    if cell.frozen:
        yield f"frozen {cell.frozen}: lora freezes all but its adapters by itself"
    if cell.fold:
        yield "fold: sums the output projection itself, without a lora adapter"
    if cell.visual_positions:
        yield "visual_positions: learnt ones are frozen under lora; leave one out"
    adapters = cell.lora_adapters
    if adapters is not None and adapters.dtype and cell.under_deepspeed:
        yield (f"lora dtype={adapters.dtype}: deepspeed holds every weight in the cell's dtype")
