"""The types of a request's fields: what a value may be, and how a wrong one is told."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from workbench.inputs.files import MAX_DIGITS
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.units import SHORT_DTYPES, count_of

MAX_TOKENS = 10**9
"""The largest |V| or |T| of a cell: 23 days of video at 512 tokens a second."""


def _long_count(value: Any) -> Any:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)  # Of numpy, as a column of a frame gives it.
    if type(value) is float and value.is_integer():
        return int(value)  # YAML and JSON read 1e9 as a real number.
    number = count_of(value) if isinstance(value, str) else None
    return value if number is None else number


def bytes_of(value: Any) -> Any:
    """Digits, ``40G`` and ``1e9`` are bytes; another text stays what it is, a name."""
    short = isinstance(value, str) and value.isascii() and len(value) <= MAX_DIGITS
    plain = value.replace("_", "") if short else ""
    return int(plain) if plain.isdecimal() else _long_count(value)


def _long_dtype(value: Any) -> Any:
    return SHORT_DTYPES.get(value, value) if isinstance(value, str) else value


def _path_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


NAME_PATTERN = r"^[^\x00-\x1f]+$"
FILE_PATTERN = r"^[^\x00]+$"
SIZE_PATTERN = r"^[1-9][0-9]{0,6}x[1-9][0-9]{0,6}$"
SWEEP_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
TEXT_PATTERN = r"^[^\x00-\x1f\x7f]*$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
PATTERNS = {
    NAME_PATTERN: "a name has no control characters, such as a line's end",
    FILE_PATTERN: "a file's name has no NUL character",
    SIZE_PATTERN: "WIDTHxHEIGHT in pixels, each at least 1, such as 640x480",
    SWEEP_PATTERN: (
        "a letter or a digit, then up to 99 letters, digits, dots, dashes and underscores, such "
        "as video-4k"
    ),
    TEXT_PATTERN: "a text has no control characters, such as a line's end",
    DIGEST_PATTERN: "64 digits in base 16, 0 to 9 and a to f",
}
"""What a text of each form has to be, in words for people."""

Whole = BeforeValidator(_long_count)
"""``10k`` and ``1.5M`` are whole numbers, too."""

Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096, pattern=NAME_PATTERN),
    BeforeValidator(_path_text),
]
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
CacheDtype = Annotated[Literal["bfloat16", "fp8", "int8"], BeforeValidator(_long_dtype)]
MasterWeights = Annotated[Literal["float32", "bfloat16"], BeforeValidator(_long_dtype)]
Layers = Literal["all"] | Annotated[int, Field(ge=1, le=10_000, strict=True), Whole]
RingOrder = Literal["zigzag", "contiguous"]
AllocatorSetting = Literal["default", "expandable_segments"]
Source = Literal["measured", "predicted"]

_T = TypeVar("_T", bound=BaseModel)
MODEL = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())
"""Of every model here: frozen, and no field that it does not have."""


_MARKS = re.compile(r"'([^']*)'")
WHOLE = "write a whole number: digits, or 10k, 1.5M, 1e6"
PLAIN = {
    "extra_forbidden": "there is no such field",
    "missing": "is missing",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "use {expected}",
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_from_float": WHOLE,
    "float_type": "write a number",
    "float_parsing": "write a number",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "string_type": "write a word",
    "string_too_short": "is empty",
    "string_too_long": "has more than {max_length} characters",
    "tuple_type": "write a list",
    "dict_type": "write names with values",
    "model_type": "write names with values",
    "too_short": "is empty",
}
"""pydantic's kinds of fault in plain words; of another kind its own are told."""
WHOLE_SENTENCE = "whole_sentence"
"""The kind of a fault whose words name what is wrong themselves."""

RULE = "rule"
"""The kind of a fault between fields, which its words name."""

SEVERAL_FAULTS = "several_faults"
"""The kind of a fault whose context has a line for each of several in one field."""

Place = tuple[int | str, ...]
"""Where in a document a value stands: names of fields, and indices of lists."""


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def fault_words(
    error: ValidationError,
    names: Iterable[str] = (),
    place_words: Callable[[Place], str] = _dotted,
) -> list[str]:
    """What is wrong with a document: of each fault its place, the value and what would be right.

    ``names`` are those of fields: the near ones are told of a name that is none. ``place_words``
    says where a fault is; by default the names and indices on the way, with dots.
    """
    faults = error.errors()
    places = [_place(fault) for fault in faults]
    reasons: dict[str, dict[str, None]] = {}
    for fault, place in zip(faults, places, strict=True):
        inside = any(len(each) > len(place) and each[: len(place)] == place for each in places)
        if fault["type"] == "too_short" and inside:
            continue  # It is empty because what stands in it was left out as faulty.
        if fault["type"] == WHOLE_SENTENCE:
            reasons.setdefault(fault["msg"], {})
            continue
        where = place_words(place)[:200]
        where = where if where.isprintable() else repr(where)[1:-1]
        if fault["type"] == RULE:
            reasons.setdefault(": ".join(filter(None, (where, fault["msg"]))), {})
            continue
        if fault["type"] == SEVERAL_FAULTS:
            reasons |= {f"{where} {line}": {} for line in fault["ctx"]["faults"]}
            continue
        value = fault.get("input")
        text = "" if isinstance(value, (dict, list, tuple)) else f"{value!r:.80}"
        what = " ".join(filter(None, (where, text)))
        reasons.setdefault(what, {})[reason_words(fault, names)] = None
    return [": ".join(filter(None, (what, ", or ".join(why)))) for what, why in reasons.items()]


def _place(fault: Any) -> Place:
    """Where a fault is, without pydantic's words for the members of a union of types."""
    if fault["type"] == "extra_forbidden":
        return tuple(fault["loc"])  # A name that somebody else chose.
    return tuple(p for p in fault["loc"] if isinstance(p, int) or p.isidentifier())


def reason_words(fault: Any, names: Iterable[str] = ()) -> str:
    """What would be right in place of one of pydantic's faults; near ones of ``names``."""
    value, plain = fault.get("input"), PLAIN.get(fault["type"])
    message = fault["msg"].removeprefix("Value error, ")
    if plain is not None:
        bounds = {name: _bound(each) for name, each in fault.get("ctx", {}).items()}
        message = plain.format(**bounds)
    elif fault["type"] == "string_pattern_mismatch":
        message = PATTERNS[fault["ctx"]["pattern"]]
    near = list[str]()
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(str(fault["loc"][-1]), list(names), n=2, cutoff=0.6)
    elif fault["type"] == "literal_error" and isinstance(value, str):
        near = get_close_matches(value, _MARKS.findall(message), n=2, cutoff=0.5)
    return f"{message}; did you mean {' or '.join(near)}?" if near else message


def _bound(value: Any) -> Any:
    return f"{value:,.12g}" if isinstance(value, (int, float)) else value


def make_model(
    kind: type[_T],
    fields: dict[str, Any],
    place_words: Callable[[Place], str] = _dotted,
    context: dict[str, Any] | None = None,
) -> _T:
    """A model from its public field names; RequestError has a line for each wrong value.

    ``context`` is pydantic's.
    """
    try:
        return kind.model_validate(fields, context=context)
    except ValidationError as error:
        raise _refusal(kind, error, place_words) from None


def _refusal(
    kind: type[BaseModel],
    error: ValidationError,
    place_words: Callable[[Place], str] = _dotted,
) -> RequestError:
    return RequestError(*fault_words(error, kind.model_fields, place_words))


class Request(BaseModel):
    """What people write down in Python: made wrongly it raises RequestError, a line a fault.

    A model within another, ``model_validate`` and JSON raise pydantic's own ValidationError, with
    which documents are told where in them a fault is.
    """

    model_config = MODEL

    if not TYPE_CHECKING:  # To a type checker its arguments are the fields.

        def __init__(self, /, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise _refusal(type(self), error) from None

        # pydantic's mark of an __init__ that only validates: documents need not go through it.
        __init__.__pydantic_base_init__ = True


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
