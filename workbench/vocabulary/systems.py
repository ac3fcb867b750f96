"""What both halves know of attention systems and reducers by name: labels, groups and settings.

``systems.yaml`` has an entry for each; the torch half has the code of the same name. A name that
has no entry is an opaque word here, and its settings are kept as they are written.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from workbench.vocabulary.units import count_of

KINDS = ("attention", "reduce")
"""The fields of a cell that name an entry."""

Value = int | float | str


@dataclass(frozen=True)
class Setting:
    """One option of a system or a reducer."""

    name: str
    default: Value
    type: str
    """``int``, ``float`` or ``word``."""
    help: str = ""
    min: float = -math.inf
    max: float = math.inf
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> Value:
        """The value that a text stands for; raises ValueError with what would be right."""
        if self.type == "word":
            if self.choices and text not in self.choices:
                raise ValueError(f"{self.name}={text}: choose {', '.join(self.choices)}")
            return text
        try:
            short = count_of(text)
            number = int if self.type == "int" else float
            value = number(text if short is None else short)
        except ValueError:
            value = math.nan
        if not self.min <= value <= self.max:
            kind = "a whole number" if self.type == "int" else "a number"
            raise ValueError(f"{self.name}={text}: {kind} from {self.min:g} to {self.max:g}")
        return value


@dataclass(frozen=True)
class Entry:
    """What is known of a system or a reducer without its code."""

    name: str
    label: str
    group: str
    gives_up: str
    logits: str = "all"
    colors: tuple[str, ...] = ()
    """Colours of its own, of ``figures.style``: of fused kernels, then of the eager one."""
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def loss(self) -> str | None:
        """What ``gives_up`` says as the end of a sentence; None where it is nothing."""
        return None if self.gives_up == "nothing" else self.gives_up.replace("; ", ", and ")


@cache
def entries() -> dict[str, dict[str, Entry]]:
    """The entries of ``systems.yaml`` by kind (``attention``, ``reduce``) and name."""
    text = Path(__file__).with_name("systems.yaml").read_text(encoding="utf-8")
    kinds: dict[str, dict[str, Entry]] = {}
    for kind, group in yaml.safe_load(text).items():
        kinds[kind] = {name: _entry(name, **fields) for name, fields in group.items()}
    return kinds


def _entry(name: str, settings: Mapping[str, Any] | None = None, **fields: Any) -> Entry:
    settings_by_name = {}
    for key, described in (settings or {}).items():
        choices = tuple(described.pop("choices", ()))
        settings_by_name[key] = Setting(name=key, choices=choices, **described)
    colors = tuple(fields.pop("colors", ()))
    return Entry(name=name, settings=settings_by_name, colors=colors, **fields)


def entry(kind: str, name: str | None) -> Entry | None:
    """The entry of that name; None where there is none."""
    return entries()[kind].get(name) if name is not None else None


def label(kind: str, name: str) -> str:
    """The published spelling; the word itself where it is not known."""
    listed = entry(kind, name)
    return name if listed is None else listed.label


class WrongSettings(ValueError):
    """Settings that cannot be: a line for each fault, with the setting and what would be right."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


def written(value: Any, example: str = "side=2") -> list[tuple[str, str]]:
    """The (name, value) pairs of settings written as text, as a list of texts, or as a mapping.

    Raises WrongSettings where one is no ``name=value``, such as ``example``.
    """
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(str(name), str(content)) for name, content in value.items()]
    texts = value if isinstance(value, (list, tuple)) else [value]
    parts = [part.strip() for whole in texts for part in str(whole).split(",") if part.strip()]
    pairs = []
    for text in parts:
        name, _, given = (piece.strip() for piece in text.partition("="))
        pairs.append((name, given))
    faults = [text for text, pair in zip(parts, pairs, strict=True) if not all(pair)]
    if faults:
        wrong = ", ".join(map(repr, faults))
        raise WrongSettings([f"{wrong}: write name=value, such as {example}"])
    return pairs


def canonical(value: Any, named: Mapping[str, str | None]) -> str | None:
    """Settings as the one text that a cell keeps: sorted, without values equal to a default.

    ``named`` has the attention system and the reducer. A setting that both declare is written with
    its owner, ``fastv.keep=0.5``. Raises WrongSettings with all that is wrong: for a setting that
    neither declares, one given twice, and a value that cannot be.
    """
    values: dict[str, str] = {}
    faults: dict[str, None] = {}
    for name, text in written(value):
        try:
            key, setting = _owner(name, named)
            if key in values:
                raise ValueError(f"{name} is given twice")
            values[key] = ""
            if setting is None:
                values[key] = text
            elif (number := setting.read(text)) != setting.default:
                values[key] = _text(number)
        except ValueError as error:
            faults[str(error)] = None
    if faults:
        raise WrongSettings(faults)
    pairs = sorted((key, text) for key, text in values.items() if text)
    return ",".join(f"{key}={text}" for key, text in pairs) or None


def settings_of(kind: str, name: str, text: str | None) -> dict[str, Value]:
    """The value of every setting of an entry under a cell's canonical text."""
    owner = entry(kind, name)
    if owner is None:
        return {}
    texts = dict(written(text))
    values = {}
    for key, setting in owner.settings.items():
        stated = texts.get(f"{name}.{key}", texts.get(key))
        values[key] = setting.default if stated is None else setting.read(stated)
    return values


def _text(value: Value) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _owner(name: str, named: Mapping[str, str | None]) -> tuple[str, Setting | None]:
    """The canonical name of a setting and what declares it; None beside a name without entry."""
    listed = {kind: entry(kind, named.get(kind)) for kind in KINDS}
    owners = [entry_ for entry_ in listed.values() if entry_ is not None]
    opaque = any(named.get(kind) is not None and listed[kind] is None for kind in KINDS)
    qualifier, _, bare = name.rpartition(".")
    declaring = [
        owner for owner in owners if bare in owner.settings and qualifier in ("", owner.name)
    ]
    if len(declaring) > 1:
        both = " or ".join(f"{owner.name}.{bare}" for owner in declaring)
        raise ValueError(f"{name}: two declare it; write {both}")
    if declaring:
        (owner,) = declaring
        shared = sum(bare in other.settings for other in owners) > 1
        return (f"{owner.name}.{bare}" if shared else bare), owner.settings[bare]
    if opaque:
        return name, None
    raise ValueError(f"{name}: {_choices(owners)}")


def _choices(owners: Iterable[Entry]) -> str:
    choices = [
        f"{owner.name} has {', '.join(owner.settings) or 'no settings'}" for owner in owners
    ]
    return "; ".join(choices) or "nothing here has settings"
