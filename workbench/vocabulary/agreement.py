"""Which fields of a cell exclude each other, whatever model and system it names.

A rule is a function; it gives the line that says so, with fields and values, or None.
"""

from typing import TYPE_CHECKING

from workbench.vocabulary.errors import Faults

if TYPE_CHECKING:
    from workbench.vocabulary.cell import Cell

SUB_GROUP_SIZE = 1_000_000_000
"""deepspeed's default of ``sub_group_size``, in elements."""
STEPS = "only a train pass of scope decoder or lvlm"


def some_token(cell: "Cell") -> str | None:
    """The one rule that asks for |V|: there is a token to compute."""
    if cell.num_text or cell.num_visual:
        return None
    return "num_visual and num_text are both 0: there is no token to compute"


def _text_of_a_loss(cell: "Cell") -> str | None:
    if cell.num_text == 0 and cell.optimizes:
        return "num_text 0: the loss of a training step needs at least 1 text token"
    return None


def _loss_of_a_step(cell: "Cell") -> str | None:
    if cell.loss_rows == "all" and not cell.optimizes:
        return f"loss_rows all: {STEPS} has a loss"
    return None


def _loss_of_logits(cell: "Cell") -> str | None:
    if cell.loss_rows == "all" and cell.logits == "text":
        return "loss_rows all: needs logits 'all'; under 'text' the LM head has text rows alone"
    return None


def _checkpoints(cell: "Cell") -> str | None:
    if cell.checkpoint_every is not None and not cell.checkpoint:
        return "checkpoint_every: needs checkpoint as well"
    return None


def _layer(cell: "Cell") -> str | None:
    if cell.layer is not None and cell.scope != "layer":
        return f"layer {cell.layer}: only scope 'layer' builds a single layer"
    return None


def _tower(cell: "Cell") -> str | None:
    if cell.tower is not None and cell.scope != "lvlm":
        return f"tower {cell.tower}: only scope 'lvlm' has a tower"
    return None


def _accumulate(cell: "Cell") -> str | None:
    if cell.accumulate > 1 and not cell.optimizes:
        return f"accumulate {cell.accumulate}: {STEPS} ends in an optimizer step"
    return None


def _frozen(cell: "Cell") -> str | None:
    if cell.frozen and not (cell.scope == "lvlm" and cell.optimizes):
        return f"frozen {cell.frozen}: only training at scope lvlm has such parts"
    return None


def _cache(cell: "Cell") -> str | None:
    if cell.cache and cell.pass_ != "forward":
        return f"cache: a forward pass keeps keys and values, not {cell.pass_}"
    return None


def _router(cell: "Cell") -> str | None:
    if cell.experts_skew and cell.weights is not None:
        return f"experts_skew: the router of {cell.weights!r:.60} sends as it learnt"
    return None


def _cache_of_training(cell: "Cell") -> str | None:
    if cell.cache_dtype is not None and cell.pass_ == "train":
        return f"cache_dtype {cell.cache_dtype}: training keeps no cache"
    return None


def _cache_widened(cell: "Cell") -> str | None:
    if cell.cache_dtype in (None, "bfloat16") or cell.dtype != "float64":
        return None
    return f"cache_dtype {cell.cache_dtype}: is widened to at most float32, not float64"


def _packed_layer(cell: "Cell") -> str | None:
    if cell.weights_dtype is not None and cell.scope == "layer":
        return f"weights_dtype {cell.weights_dtype}: of a whole decoder; use scope decoder or lvlm"
    return None


def _packed_training(cell: "Cell") -> str | None:
    if cell.weights_dtype is not None and cell.pass_ == "train" and cell.lora is None:
        return f"weights_dtype {cell.weights_dtype}: such weights cannot be trained; add lora"
    return None


def _packed_decode(cell: "Cell") -> str | None:
    if cell.weights_dtype is not None and cell.pass_ == "decode":
        return f"weights_dtype {cell.weights_dtype}: kernels of a decode step are not modelled"
    return None


def _packed_ranks(cell: "Cell") -> str | None:
    if cell.weights_dtype is not None and cell.under_deepspeed:
        return f"weights_dtype {cell.weights_dtype}: one process alone holds such weights here"
    return None


def _packed_fold(cell: "Cell") -> str | None:
    if cell.weights_dtype is not None and cell.fold:
        return f"fold: needs the output projection as numbers, not as {cell.weights_dtype}"
    return None


def _packed_widened(cell: "Cell") -> str | None:
    if cell.weights_dtype is not None and cell.dtype == "float64":
        return f"weights_dtype {cell.weights_dtype}: is widened to at most float32, not float64"
    return None


def _lora(cell: "Cell") -> str | None:
    if cell.lora is not None and not cell.optimizes:
        return f"lora: {STEPS} trains adapters"
    return None


def _lora_frozen(cell: "Cell") -> str | None:
    if cell.lora is not None and cell.frozen:
        return f"frozen {cell.frozen}: lora freezes all but its adapters by itself"
    return None


def _lora_fold(cell: "Cell") -> str | None:
    if cell.lora is not None and cell.fold:
        return "fold: sums the output projection itself, without a lora adapter"
    return None


def _lora_positions(cell: "Cell") -> str | None:
    if cell.lora is not None and cell.visual_positions:
        return "visual_positions: learnt ones are frozen under lora; leave one out"
    return None


def _lora_dtype(cell: "Cell") -> str | None:
    adapters = cell.lora_adapters
    if adapters is not None and adapters.dtype and cell.under_deepspeed:
        return f"lora dtype={adapters.dtype}: deepspeed holds every weight in the cell's dtype"
    return None


def _optimizer(cell: "Cell") -> str | None:
    if cell.optimizer != "adamw" and not cell.optimizes:
        return f"optimizer {cell.optimizer}: {STEPS} ends in an optimizer step"
    return None


def _optimizer_of_ranks(cell: "Cell") -> str | None:
    if cell.optimizer != "adamw" and cell.under_deepspeed:
        return f"optimizer {cell.optimizer}: {_UNDER_DEEPSPEED}"
    return None


def _masters(cell: "Cell") -> str | None:
    if cell.master_weights != "float32" and not cell.optimizes:
        return f"master_weights {cell.master_weights}: {STEPS} ends in an optimizer step"
    return None


def _masters_of_ranks(cell: "Cell") -> str | None:
    if cell.master_weights != "float32" and cell.under_deepspeed:
        return f"master_weights {cell.master_weights}: {_UNDER_DEEPSPEED}"
    return None


_UNDER_DEEPSPEED = (
    "under deepspeed, so under ZeRO or on several ranks, AdamW steps on float32 parts of all "
    "weights; leave it out"
)


def _masters_dtype(cell: "Cell") -> str | None:
    if cell.master_weights == "float32" or cell.dtype == "bfloat16":
        return None
    return (
        f"master_weights {cell.master_weights}: says that bfloat16 weights have no wider copy; "
        f"those of dtype {cell.dtype} are not bfloat16"
    )


def _sub_groups(cell: "Cell") -> str | None:
    if cell.sub_group_size != SUB_GROUP_SIZE and cell.zero != 3:
        return f"sub_group_size {cell.sub_group_size}: only ZeRO 3 has sub-groups"
    return None


def _offloaded_optimizer(cell: "Cell") -> str | None:
    if cell.offload_optimizer and not cell.zero:
        return "offload_optimizer: needs ZeRO; give --zero 1, 2 or 3"
    return None


def shared_sequence(cell: "Cell") -> str | None:
    if cell.world_size % cell.sharing == 0:
        return None
    axes = {"ulysses": cell.ulysses, "ring": cell.ring}
    words = " × ".join(f"{name} {count}" for name, count in axes.items() if count > 1)
    return (
        f"{words}: does not divide world_size {cell.world_size}; the ranks that share a sequence "
        "are among those that share the states"
    )


def _ring_order(cell: "Cell") -> str | None:
    if cell.ring_order != "zigzag" and cell.ring == 1:
        return f"ring_order {cell.ring_order}: needs a ring; give --ring N"
    return None


RULES = (
    some_token,
    _text_of_a_loss,
    _loss_of_a_step,
    _loss_of_logits,
    _checkpoints,
    _layer,
    _tower,
    _accumulate,
    _frozen,
    _cache,
    _router,
    _cache_of_training,
    _cache_widened,
    _packed_layer,
    _packed_training,
    _packed_decode,
    _packed_ranks,
    _packed_fold,
    _packed_widened,
    _lora,
    _lora_frozen,
    _lora_fold,
    _lora_positions,
    _lora_dtype,
    _optimizer,
    _optimizer_of_ranks,
    _masters,
    _masters_of_ranks,
    _masters_dtype,
    _sub_groups,
    _offloaded_optimizer,
    shared_sequence,
    _ring_order,
)
"""All of them, in the order in which they are told."""
SIZES = {
    some_token: ("num_visual", "num_text"),
    shared_sequence: ("ring", "ulysses", "world_size"),
}
"""Rules without which a sequence has no sizes, and the fields that they are between."""


def check_states(cell: "Cell") -> None:
    """Raise RequestError for a sharding that cannot be run, though a cell may say it."""
    faults = Faults()
    for rule in (_dtype_under_deepspeed, _states_to_shard, _ranks_to_share):
        with faults:
            line = rule(cell)
            faults.add(*([] if line is None else [line]))
    faults.raise_all()


def _dtype_under_deepspeed(cell: "Cell") -> str | None:
    if cell.under_deepspeed and cell.dtype in ("float64", "float16") and cell.optimizes:
        return (
            f"dtype {cell.dtype}: training under deepspeed, so on several ranks, runs in bfloat16 "
            "or float32"
        )
    return None


def _states_to_shard(cell: "Cell") -> str | None:
    if cell.zero and not cell.optimizes:
        return f"zero {cell.zero}: {STEPS} has states to shard"
    return None


def _ranks_to_share(cell: "Cell") -> str | None:
    if cell.zero and cell.world_size == 1 and not cell.offload_optimizer and cell.optimizes:
        return (
            f"zero {cell.zero}: with world_size 1 there is nobody to share with and nothing is "
            "saved; give --world-size 2 or more, --offload-optimizer, or --zero 0"
        )
    return None
