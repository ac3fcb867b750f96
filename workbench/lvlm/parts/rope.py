"""Rotary embeddings that compute their frequencies from positions: on values, and on shapes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MOVING = ("dynamic", "longrope")
"""Types whose frequencies depend on the largest position of the sequence."""


def rope_types() -> list[str]:
    """Every type that transformers computes."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return sorted({"default", *ROPE_INIT_FUNCTIONS})


def types_of(parameters: Any) -> dict[str, str]:
    """The type by kind of layer; under one name where all layers have the same."""
    if not isinstance(parameters, dict):
        return {"": "default"}
    nested = {k: v for k, v in parameters.items() if isinstance(v, dict)}
    if nested:
        return {k: str(v.get("rope_type", "default")) for k, v in nested.items()}
    return {"": str(parameters.get("rope_type", "default"))}


def check_rope(name: str, config: "PreTrainedConfig") -> None:
    """Raise RequestError for a type of rotary embedding that transformers does not compute."""
    types = rope_types()
    for kind in types_of(getattr(config, "rope_parameters", None)).values():
        if kind not in types:
            raise RequestError(
                f"model {name!r}: rope_type {kind!r} is unknown; known: {', '.join(types)}"
            )


def hold_rope(rotary: Any) -> None:
    """Keep frequencies as they were made: on shapes there is no largest position to go by."""
    kind = getattr(rotary, "rope_type", None)
    if isinstance(kind, str):
        rotary.rope_type = "default"
    elif isinstance(kind, dict):
        rotary.rope_type = dict.fromkeys(kind, "default")


def tables(
    make: Callable[[Tensor], tuple[Tensor, Tensor]], config: Any, places: Tensor, last: int
) -> tuple[Tensor, Tensor]:
    """cos and sin of ``places`` [S] or [3, S], of a sequence whose last position is ``last``.

    Some types go by the largest position that they are shown, and one stream of a sequence does
    not have it: it is shown beside the others and left out of the result.
    """
    if not set(types_of(getattr(config, "rope_parameters", None)).values()) & set(MOVING):
        return make(places)
    end = places.new_full((*places.shape[:-1], 1), last)
    cos, sin = make(torch.cat((places, end), -1))
    return cos[..., :-1, :].clone(), sin[..., :-1, :].clone()
