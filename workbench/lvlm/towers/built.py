"""Whether transformers builds a config's tower, and of the sizes that its images are cut to."""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from workbench.lvlm.configs import one_line, silent
from workbench.lvlm.configs.fields import TOWER_SIZES
from workbench.visual import FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved


def tower_reason(config: Any, unlisted: tuple[str, str] | None = None) -> str | None:
    """Why transformers cannot build a configuration's tower, on shapes alone; None if it can."""
    kind: Any = type(config)
    return _reason(kind, config.to_json_string(use_diff=False), unlisted)


@lru_cache(maxsize=64)
def _reason(kind: Any, fields: str, unlisted: tuple[str, str] | None) -> str | None:
    """Why transformers cannot build a tower of that configuration class; None where it can.

    The class decides: some published files give the section the name of the whole model's type.
    """
    import torch
    from transformers import AutoModel

    try:
        with torch.device("meta"), silent():
            config = kind(**json.loads(fields))
            if unlisted is None:
                AutoModel.from_config(config)
            else:
                getattr(import_module(unlisted[0]), unlisted[1])(config)
    except Exception as error:  # noqa: BLE001 - its classes raise what they like
        return one_line(error)
    return None


def check_left_out(model: "Resolved", front: FrontEnd) -> None:
    """Raise RequestError where the tower's default of a size is not what images are cut to."""
    section = model.stated.get("vision_config")
    built = getattr(model.whole, "vision_config", None)
    for field in ("image_size", "patch_size"):
        size, cut = getattr(built, field, None), getattr(front, field, None)
        size = size[0] if isinstance(size, (list, tuple)) else size
        stated = isinstance(section, dict) and section.get(field) is not None
        if not stated and isinstance(size, int) and cut not in (None, size):
            raise RequestError(
                f"model {model.name!r}: config.json states no vision_config.{field}, of which "
                f"transformers' default is {size}, and its images have {cut}"
            )


def default_flags(model: "Resolved", other_names: Mapping[str, str]) -> list[str]:
    """A flag that names the sizes of a config's tower which only transformers' class supplies.

    ``other_names`` are those under which published files state some sizes.
    """
    section = model.stated.get("vision_config")
    built = getattr(model.whole, "vision_config", None)
    if not isinstance(section, dict) or built is None:
        return []
    sizes = {field: getattr(built, field, None) for field in TOWER_SIZES}
    names = [
        f"{field} {size:,}"
        for field, size in sizes.items()
        if isinstance(size, int)
        and isinstance(getattr(type(built), field, None), int)
        and section.get(field) is section.get(other_names.get(field, field)) is None
    ]
    if not names:
        return []
    return [
        f"config: config.json does not state vision_config's {', '.join(names)}: the default of "
        f"transformers' {type(built).__name__}"
    ]
