"""deepspeed's configuration of a cell: what the ranks run with, and what can be written out."""

from collections.abc import Sequence
from typing import Any

from workbench.lvlm.models import resolve
from workbench.lvlm.optimizers.settings import hyper_of
from workbench.probe.counting.states import REDUCE_BUCKET, Parameter
from workbench.vocabulary.cell import Cell

Config = dict[str, Any]


def engine_config(cell: Cell, parameters: Sequence[Parameter]) -> Config:
    """What ``deepspeed.initialize`` is given beside an optimizer of ours."""
    trained = sum(p.numel for p in parameters if p.trained)
    zero: Config = {"stage": cell.zero, "reduce_bucket_size": bucket_elements(trained)}
    if cell.zero == 3:
        zero["sub_group_size"] = cell.sub_group_size
    if cell.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    config: Config = {
        "train_micro_batch_size_per_gpu": cell.batch,
        "gradient_accumulation_steps": cell.accumulate,
        "bf16": {"enabled": cell.dtype == "bfloat16"},
        "zero_optimization": zero,
        "steps_per_print": 1_000_000_000,
    }
    if cell.offload_optimizer:
        # torch's own AdamW steps on the host: deepspeed's would have to be compiled.
        config["zero_force_ds_cpu_optimizer"] = False
    if cell.sharing > 1:
        config["sequence_parallel_size"] = cell.sharing
    return config


def bucket_elements(trained: int) -> int:
    """deepspeed's default for gradients reduced at once, at most what there is; even."""
    return min(REDUCE_BUCKET, trained + trained % 2)


def whole_config(cell: Cell, parameters: Sequence[Parameter]) -> Config:
    """``engine_config`` with AdamW as the cell's optimizer, for ``deepspeed --deepspeed_config``.

    One learning rate has a place in it, the decoder's or, where that is frozen, the adapter's.
    """
    config = hyper_of(cell, resolve(cell.model).family.training)
    params = {
        "lr": config.rates["adapter" if "decoder" in cell.frozen_parts else "decoder"],
        "betas": list(config.betas),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
        "torch_adam": True,
    }
    return {
        **engine_config(cell, parameters),
        "optimizer": {"type": "AdamW", "params": params},
    }
