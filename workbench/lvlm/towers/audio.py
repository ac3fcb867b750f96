"""The audio tower beside a vision tower: left out, its parameters said by a flag."""

import json
from functools import lru_cache
from typing import Any

from workbench.lvlm.configs import one_line, silent
from workbench.vocabulary.errors import RequestError


def audio_flag(model: str, tower: tuple[Any, ...], projector: tuple[Any, ...] = ()) -> str:
    """A record's flag that names what is left out: a class of transformers and its
    configurations, and another's where the projector is no part of the tower.

    Raises RequestError where transformers cannot build them.
    """
    count = sum(_parameters(model, *module) for module in (tower, projector) if module)
    words = "is left out with its projector, their" if projector else "is left out, its"
    return f"tower: the audio tower beside it {words} {count:,} parameters too"


def _parameters(model: str, kind: Any, *configs: Any) -> int:
    stated = ((type(config), config.to_json_string(use_diff=False)) for config in configs)
    try:
        return parameters_of(kind, *stated)
    except Exception as error:  # noqa: BLE001 - its classes raise what they like
        raise RequestError(
            f"model {model!r}: audio_config: transformers cannot build its audio tower: "
            f"{one_line(error)}"
        ) from None


@lru_cache(maxsize=16)
def parameters_of(kind: Any, *configs: tuple[Any, str]) -> int:
    """Parameters of a class of transformers, built on shapes alone.

    Configurations are given as a class and its fields in JSON.
    """
    import torch

    with torch.device("meta"), silent():
        module = kind(*(config(**json.loads(fields)) for config, fields in configs))
    return sum(parameter.numel() for parameter in module.parameters())
