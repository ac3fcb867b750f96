"""A Cell: one point of a sweep, what is run and never how it is measured.

Its fields are in ``cell_fields.py``. Types and ranges are checked here; names (models, systems,
kernels, devices) are opaque words that the torch half resolves. Nothing here imports torch.
"""

import hashlib
import json
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from workbench.vocabulary.agreement import RULES, some_token
from workbench.vocabulary.cell_fields import CellFields
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import (
    SEVERAL_FAULTS,
    WHOLE_SENTENCE,
    Description,
    Role,
    make_model,
)
from workbench.vocabulary.lora import Lora, canonical_lora, lora_of
from workbench.vocabulary.rules import Rule, wrong_fields
from workbench.vocabulary.systems import KINDS, WrongSettings, canonical, entry
from workbench.vocabulary.units import SHORT_DTYPES

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=1024)
def _layout(value: str) -> str:
    parts = [p for p in re.split(r"[,\s]+", value.strip().upper()) if p]
    kinds = [p[0] for p in parts if re.fullmatch(r"[VT]([1-9][0-9]{0,9})?", p)]
    alternates = all(a != b for a, b in pairwise(kinds))
    if not parts or len(kinds) < len(parts) or not alternates or kinds[-1] != "T":
        raise ValueError(
            "a layout alternates V and T and ends in T, such as V,T or T,V,T; numbers are "
            "sizes of segments, such as V729,T,V1458,T"
        )
    return ",".join(parts)


class Cell(CellFields):
    """One point of a sweep: what is run, never how it is measured. See DESIGN for each word.

    ``pass`` is a keyword of Python, so the attribute is ``pass_``; documents say ``pass``.
    """

    RULES: ClassVar[tuple[Rule, ...]] = RULES
    STAND_INS: ClassVar[dict[str, Any]] = {"num_visual": 1}

    @model_validator(mode="before")
    @classmethod
    def _of_its_system(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = {**data}
        if data.get("cache_dtype") is not None:
            dtype = data.get("dtype", "bfloat16")
            dtypes = [SHORT_DTYPES.get(str(name), name) for name in (data["cache_dtype"], dtype)]
            if dtypes[0] == dtypes[1]:
                fields["cache_dtype"] = None
            elif data.get("pass", data.get("pass_", "forward")) == "forward":
                fields["cache"] = True  # Only what is kept has a type.
        system = entry("attention", str(data.get("attention")))
        # Of some systems no visual token reaches the LM head.
        if system is not None and system.logits == "text" and data.get("logits") is None:
            fields["logits"] = "text"
        return fields

    @field_validator("logits")
    @classmethod
    def _logits(cls, value: str, info: ValidationInfo) -> str:
        system = entry("attention", info.data.get("attention"))
        if system is not None and system.logits == "text" != value:
            raise PydanticCustomError(
                WHOLE_SENTENCE,
                "logits '{value}': {system} has no visual rows in its LM head; use 'text'",
                {"value": value, "system": system.name},
            )
        return value

    @field_validator("settings", mode="before")
    @classmethod
    def _settings(cls, value: Any, info: ValidationInfo) -> str | None:
        if any(kind not in info.data or kind in wrong_fields(info) for kind in KINDS):
            return None  # Whose settings they are is not known, and that is refused.
        try:
            return canonical(value, {kind: info.data[kind] for kind in KINDS})
        except WrongSettings as error:
            faults = {"faults": error.faults}
            raise PydanticCustomError(SEVERAL_FAULTS, "{faults}", faults) from None

    @field_validator("layout", mode="before")
    @classmethod
    def _layout(cls, value: Any) -> str:
        return _layout(str(value))

    @field_validator("frozen", mode="before")
    @classmethod
    def _frozen(cls, value: Any) -> str | None:
        names = value if isinstance(value, (list, tuple)) else str(value or "").split(",")
        return ",".join(sorted({str(name).strip() for name in names} - {""})) or None

    @field_validator("lora", mode="before")
    @classmethod
    def _lora(cls, value: Any) -> str | None:
        return canonical_lora(value)

    @property
    def lora_adapters(self) -> Lora | None:
        """What ``lora`` says; None for none."""
        return None if self.lora is None else lora_of(self.lora)

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The names in ``frozen``."""
        return tuple(self.frozen.split(",")) if self.frozen else ()

    @property
    def optimizes(self) -> bool:
        """Whether an iteration ends in an optimizer step."""
        return self.pass_ == "train" and self.scope != "layer"

    @property
    def steps_plainly(self) -> bool:
        """Whether its optimizer is AdamW with float32 masters of narrower weights, the default."""
        return self.optimizer == "adamw" and self.master_weights == "float32"

    @property
    def sharing(self) -> int:
        """Ranks that share one sequence, by heads and by rows."""
        return self.ulysses * self.ring

    @property
    def under_deepspeed(self) -> bool:
        """Whether its training step runs under deepspeed: on several ranks, or under ZeRO."""
        return self.world_size > 1 or self.zero > 0

    @property
    def key(self) -> str:
        """16 hex digits that identify the cell on every machine and in every version.

        Only fields that differ from their defaults are hashed: a new field leaves old keys alone.
        """
        return self.key_at()(self.num_visual)

    def key_at(self) -> Callable[[int], str]:
        """The keys of this cell at any |V|: in what is hashed one number differs."""
        changed = self.model_dump(by_alias=True, exclude_defaults=True)
        text = _CANONICAL.encode({**changed, "num_visual": 0})
        # It stands there once: the quotes of a name within a string are escaped.
        before, after = text.split('"num_visual":0')

        def key(num_visual: int) -> str:
            whole = f'{before}"num_visual":{num_visual}{after}'
            return hashlib.sha256(whole.encode()).hexdigest()[:16]

        return key

    def at(self, num_visual: int) -> Self:
        """A copy with another |V|; of its checks only the one that asks for |V| is made again."""
        if num_visual == self.num_visual:
            return self
        cell = self.model_copy(update={"num_visual": num_visual})
        fault = some_token(cell)
        if fault is not None:
            raise RequestError(fault)
        return cell

    @property
    def kind(self) -> tuple[Any, ...]:
        """Every field but |V|: what cells that differ in nothing else share, to group them by."""
        return _KIND(self.__dict__)

    def document(self) -> dict[str, Any]:
        """All fields under their public names (``pass``, not ``pass_``), JSON-ready."""
        return self.model_dump(by_alias=True)

    def replace(self, **changes: Any) -> Self:
        """A copy with ``changes``, validated again; ``pass`` may be called ``pass_``."""
        fields = {PUBLIC_NAMES.get(name, name): value for name, value in changes.items()}
        return make_model(type(self), {**self.document(), **fields})

    @property
    def title(self) -> str:
        """A short human name: system, kernel and |V|, then every option that is switched on."""
        words = [self.model, self.attention, self.kernel, self.scope, self.pass_]
        words.append(f"V={self.num_visual:,}")
        words += [name for name, on in zip(OPTION_FLAGS, _FLAGS(self.__dict__), strict=True) if on]
        words += [f"chunk={self.chunk}"] if self.chunk else []
        return " ".join(words)


PUBLIC_NAMES = {
    name: field.serialization_alias or name for name, field in Cell.model_fields.items()
}
"""The attributes of a cell and the names of its fields in documents (``pass`` of ``pass_``)."""

FIELDS = {PUBLIC_NAMES[name]: field for name, field in Cell.model_fields.items()}
"""The fields of a cell by their public names (``pass``, not ``pass_``)."""


DESCRIPTIONS: dict[str, Description] = {
    name: next(each for each in field.metadata if isinstance(each, Description))
    for name, field in FIELDS.items()
}
"""What is said of each field, by its public name."""

OPTION_FLAGS = tuple(name for name, field in FIELDS.items() if field.annotation is bool)
"""The on/off fields of a cell."""


_KIND: Callable[[dict[str, Any]], tuple[Any, ...]] = itemgetter(
    *(name for name in Cell.model_fields if name != "num_visual")
)
_FLAGS: Callable[[dict[str, Any]], tuple[bool, ...]] = itemgetter(*OPTION_FLAGS)


def option_of(name: str) -> str:
    """The option of the command line that sets a field, by the field's public name."""
    return DESCRIPTIONS[name].option or "--" + name.replace("_", "-")


def value_type(name: str) -> type:
    """What a field's value is beside None: ``bool``, ``int`` or, whatever it names, ``str``."""
    annotation = FIELDS[name].annotation
    union = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    kinds = {get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in union}
    kinds.discard(NoneType)
    return kinds.pop() if kinds in ({bool}, {int}) else str


def fields_with(role: Role) -> tuple[str, ...]:
    """The public names of the fields of a role, in order."""
    return tuple(name for name, description in DESCRIPTIONS.items() if description.role == role)


def field_label(name: str) -> str:
    """How a field of a cell, by its public name, is called where people read it."""
    return DESCRIPTIONS[name].label or name.replace("_", " ").capitalize()


def condition_words(name: str, value: Any) -> str:
    """A condition in a caption: '|T| = 400', 'layer 3', 'allocator: expandable_segments'."""
    caption = DESCRIPTIONS[name].caption
    return caption.format(value) if caption else f"{field_label(name).lower()}: {value}"


def make_cell(**fields: Any) -> Cell:
    """A Cell from public field names; RequestError has a line for each wrong value."""
    return make_model(Cell, fields)
