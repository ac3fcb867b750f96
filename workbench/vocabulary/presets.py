"""Named beginnings of a cell: the three training stages of the D-Attn paper (its Table 7)."""

from typing import Any

from workbench.vocabulary.registry import Registry

PRESETS: Registry[dict[str, Any]] = Registry("preset")

RANKS = 32
"""H100 80 GB that the paper trains on."""
_STAGE: dict[str, Any] = {
    "scope": "lvlm",
    "pass": "train",
    "attention": "d_attn",
    "num_text": 400,
    "logits": "text",
    "checkpoint": True,
    "world_size": RANKS,
}


def _stage(total_batch: int, **fields: Any) -> dict[str, Any]:
    # The micro-batch is not in the table: one sample a GPU, the rest of the batch added up.
    return {**_STAGE, "accumulate": total_batch // RANKS, **fields}


PRESETS.add("paper-stage-1", _stage(512, zero=2, frozen="decoder,tower"))
PRESETS.add("paper-stage-2", _stage(256, zero=3))
PRESETS.add("paper-stage-3", _stage(128, zero=3))
