"""The types of a request's fields: what a value may be, and how a wrong one is told."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.units import SHORT_DTYPES, count_of

MAX_TOKENS = 10**9
"""The largest |V| or |T| of a cell: 23 days of video at 512 tokens a second."""


def _long_count(value: Any) -> Any:
    number = count_of(value) if isinstance(value, str) else None
    return value if number is None else number


def _long_dtype(value: Any) -> Any:
    return SHORT_DTYPES.get(value, value) if isinstance(value, str) else value


Whole = BeforeValidator(_long_count)
"""``10k`` and ``1.5M`` are whole numbers, too."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f]+$")]
Count = Annotated[int, Field(ge=0, le=MAX_TOKENS, strict=True), Whole]
Positive = Annotated[int, Field(ge=1, le=MAX_TOKENS, strict=True), Whole]
Scope = Literal["layer", "decoder", "lvlm"]
Pass = Literal["forward", "train", "decode"]
Dtype = Annotated[
    Literal["float64", "float32", "bfloat16", "float16"], BeforeValidator(_long_dtype)
]
Logits = Literal["all", "text"]
LossRows = Literal["text", "all"]
WeightsDtype = Literal["int4", "int8", "fp8"]
CacheDtype = Literal["bfloat16", "fp8", "int8"]
MasterWeights = Literal["float32", "bfloat16"]
Layers = Literal["all"] | Annotated[int, Field(ge=1, le=10_000, strict=True), Whole]
RingOrder = Literal["zigzag", "contiguous"]
AllocatorSetting = Literal["default", "expandable_segments"]
Source = Literal["measured", "predicted"]

_T = TypeVar("_T", bound=BaseModel)
MODEL = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())
"""Of every model here: frozen, and no field that it does not have."""


MOST_FAULTS = 5
"""Faults of a document that are told, one after another in a line."""
_MARKS = re.compile(r"'([^']*)'")


def all_errors(error: ValidationError, names: Iterable[str] = ()) -> str:
    """What pydantic says of a document, in one line: of each fault field, value, what is wrong.

    ``known`` are the names of fields: the near ones are told of a name that is none.
    """
    faults = error.errors()
    told = [_told(fault, names) for fault in faults[:MOST_FAULTS]]
    more = len(faults) - len(told)
    return "; ".join(dict.fromkeys(told)) + (f" (and {more} more)" if more > 0 else "")


def _told(fault: Any, names: Iterable[str]) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "the document"
    value = fault.get("input")
    text = "" if isinstance(value, (dict, list)) else f" {value!r:.80}"
    message, near = fault["msg"].removeprefix("Value error, "), list[str]()
    if fault["type"] == "extra_forbidden":
        message = "there is no such field"
        near = get_close_matches(str(fault["loc"][-1]), list(names), n=2, cutoff=0.6)
    elif fault["type"] == "literal_error" and isinstance(value, str):
        near = get_close_matches(value, _MARKS.findall(message), n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{where}{text}: {message}{hint}"


def make_model(kind: type[_T], fields: dict[str, Any]) -> _T:
    """A model from its public field names; raises RequestError, one line, at a wrong value."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        text = all_errors(error, kind.model_fields).removeprefix("the document: ")
        raise RequestError(text.removeprefix("protocol.")) from None


Role = Literal["subject", "size", "system", "condition"]
"""What a field is to a figure: what it is about, its axis, what makes a line, what is equal."""


@dataclass(frozen=True)
class Description:
    """What is said of a cell's field wherever people meet it, beside its type and its default.

    The options of the command line, the controls and captions of the dashboard and the report, the
    names of lines, a calibration's coverage and the tables of docs/reference.md are made of it.
    """

    help: str
    """What it means, in Markdown; the command line shows it without backticks."""
    label: str | None = None
    """How it is called where people read it; None: its name, in words."""
    option: str | None = None
    """Its option on the command line; None: its name, with dashes."""
    unset: str | None = None
    """The default in words, where that is no value: ``random`` of weights that are not named."""
    role: Role = "condition"
    caption: str | None = None
    """A condition's value in a caption, as ``str.format`` takes it: ``batch {:,}``."""
    operators: bool = False
    """Whether it changes which operators run, so that a calibration says if it was measured."""
