"""Documents whose fields can contradict each other: every rule that they break is told at once.

pydantic looks at what lies between fields only where each is right by itself. Here the rules are
asked of those that are right as well, so that nobody is told in two rounds.
"""

from collections.abc import Callable, Iterable
from inspect import getattr_static
from types import FunctionType
from typing import Any, ClassVar, Self, TypeVar, cast, get_args

from pydantic import (
    AliasChoices,
    BaseModel,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from workbench.vocabulary.errors import Faults, WrongField
from workbench.vocabulary.fields import RULE, Request

Rule = Callable[[Any], str | None]
"""What is wrong between fields of a document, in a line that names them; None where nothing is."""
_UNRULED, _WRONG = "unruled", "wrong"
_OWN_KINDS = frozenset(get_args(ErrorType))
_M = TypeVar("_M", bound=BaseModel)


class Ruled(Request):
    """A document with RULES between its fields, each a function of its own."""

    RULES: ClassVar[tuple[Rule, ...]] = ()
    STAND_INS: ClassVar[dict[str, Any]] = {}
    """Values of the fields that have no default, while other fields are looked at."""

    @classmethod
    def broken(cls, document: Any) -> list[str]:
        """What the rules say of a document, or of ``part_of`` one: a line each."""
        faults = Faults()
        for rule in cls.RULES:
            with faults:
                line = rule(document)
                faults.add(*([] if line is None else [line]))
        return faults.lines

    @classmethod
    def part_of(cls, fields: Any, wrong: Iterable[str] = ()) -> Self | None:
        """A model of those fields that are right by themselves, whatever the rules say of them.

        To read another, or one of ``wrong``, raises WrongField. None where what is wrong is no
        field's.
        """
        attributes = _attributes(cls)
        left_out, whole = set(wrong), None
        while whole is None and isinstance(fields, dict):
            fields = {k: v for k, v in fields.items() if attributes.get(k, k) not in left_out}
            for name, value in cls.STAND_INS.items():
                if name in left_out:
                    fields[name] = value
            try:
                whole = cls.model_validate(fields, context={_UNRULED: True, _WRONG: left_out})
            except ValidationError as error:
                places = [str(fault["loc"][0]) for fault in error.errors() if fault["loc"]]
                more = {attributes.get(name, name) for name in places} - left_out
                if not more:
                    return None
                left_out |= more
        return None if whole is None else _only_right(whole, left_out)

    @model_validator(mode="wrap")
    @classmethod
    def _by_its_rules(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if isinstance(data, cls) or (info.context or {}).get(_UNRULED):
            return handler(data)  # Where it is one already, its rules were asked.
        wrong = wrong_fields(info)
        try:
            document = handler(data)
        except ValidationError as error:
            part = cls.part_of(data, wrong)
            if part is None:
                raise
            faults = [*map(_again, error.errors()), *map(_of_a_rule, cls.broken(part))]
            raise ValidationError.from_exception_data(cls.__name__, faults) from None
        lines = cls.broken(_only_right(document, wrong))
        if lines:
            faults = [_of_a_rule(line) for line in lines]
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return document


def with_wrong(names: Iterable[str]) -> dict[str, Any]:
    """The context for a document some of whose fields stand in for wrong ones."""
    return {_WRONG: frozenset(names)}


def wrong_fields(info: ValidationInfo) -> frozenset[str]:
    """The fields that stand in for wrong ones where a document is validated."""
    return frozenset((info.context or {}).get(_WRONG, ()))


class _Right:
    """Stands for a document whose ``wrong`` fields cannot be read."""

    def __init__(self, whole: BaseModel, wrong: frozenset[str]) -> None:
        self._whole, self._wrong = whole, wrong

    def __getattr__(self, name: str) -> Any:
        member = getattr_static(type(self._whole), name, None)
        # A method may read any field.
        if name in self._wrong or isinstance(member, FunctionType):
            raise WrongField(name)
        if isinstance(member, property) and member.fget is not None:
            return member.fget(self)
        return getattr(self._whole, name)


def _only_right(whole: _M, wrong: Iterable[str]) -> _M:
    names = frozenset(wrong)
    return cast("_M", _Right(whole, names)) if names else whole


def _attributes(kind: type[BaseModel]) -> dict[str, str]:
    """The attribute that each name of a field in a document sets."""
    attributes: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        aliases = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
        attributes |= {str(each): name for each in (name, *aliases)}
    return attributes


def _of_a_rule(line: str) -> InitErrorDetails:
    kind = PydanticCustomError(RULE, "{line}", {"line": line})
    return InitErrorDetails(type=kind, loc=(), input=None)


def _again(fault: Any) -> InitErrorDetails:
    """One of pydantic's faults, as a new error takes it."""
    context = fault.get("ctx", {})
    details = InitErrorDetails(type=fault["type"], loc=fault["loc"], input=fault["input"])
    if fault["type"] not in _OWN_KINDS:
        details["type"] = PydanticCustomError(fault["type"], fault["msg"], context)
    elif context:
        details["ctx"] = context
    return details
