"""YAML from outside as plain data: what is written is what is read, within bounds, or one line.

PyYAML's own safe loader follows YAML 1.1: ``0256`` is 174, ``1:30`` is 90, of a key given twice
the last counts, and aliases make gigabytes of a few hundred bytes. Here numbers are read as in
YAML 1.2's core schema, and aliases, tags and repeated keys are refused with their line.
"""

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from workbench.inputs.files import MAX_DIGITS, read_text
from workbench.vocabulary.errors import RequestError

MAX_BYTES = 128 * 2**10
"""Bytes of a file: a thousand values of |V| have 10 kB, and PyYAML reads some 100 kB a second."""
MAX_DEPTH = 32
"""Levels of lists and mappings in one another."""


class _Refused(yaml.YAMLError):
    """What is YAML, but not read here."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem)
        self.problem, self.problem_mark = problem, mark


class _Loader(yaml.SafeLoader):
    """Plain YAML 1.2: null, true, false, numbers in decimal, words, lists and mappings."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(
                f"an alias (*{event.anchor:.40}) is not read; write it out", event.start_mark
            )
        if getattr(event, "tag", None) is not None:
            raise _Refused(f"a tag ({event.tag:.60}) is not read; leave it out", event.start_mark)
        if self._depth == MAX_DEPTH:
            raise _Refused(f"more than {MAX_DEPTH} levels", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != _STRING:
                raise _Refused("a key is a word", key.start_mark)
            if key.value in lines:
                raise _Refused(
                    f"{key.value:.60}: given twice, first in line {lines[key.value]}",
                    key.start_mark,
                )
            lines[key.value] = line
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: Any) -> None:
        """Nothing: YAML 1.2 has no merge key."""

    def integer(self, node: Any) -> int:
        """An integer in decimal, with ``_`` between digits."""
        digits = node.value.replace("_", "").lstrip("+-")
        if len(digits) > MAX_DIGITS:
            raise _Refused(
                f"an integer of {len(digits):,} digits, at most {MAX_DIGITS} are read",
                node.start_mark,
            )
        return -int(digits) if node.value.startswith("-") else int(digits)

    def leading_zero(self, node: Any) -> int:
        """No number: some read it in base 8, others in base 10."""
        raise _Refused(
            f"{node.value:.40}: has a leading zero, which some read in base 8; write it without",
            node.start_mark,
        )

    def real(self, node: Any) -> float:
        """A floating-point number."""
        digits = node.value.replace("_", "").lower()
        return float(digits.replace(".inf", "inf").replace(".nan", "nan"))


_STRING = "tag:yaml.org,2002:str"
_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"
_FORMS: tuple[tuple[str, str, str], ...] = (
    (_NULL, r"~|null|Null|NULL|", "~nN\0"),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("leading zero", r"[-+]?0[0-9_]+", "-+0"),
    ("integer", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "real",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
        r"|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
"""Tag, form and first characters of what is no word."""
_Loader.yaml_implicit_resolvers = {}  # None of YAML 1.1's.
for _tag, _form, _first in _FORMS:
    _Loader.add_implicit_resolver(
        _tag, re.compile(rf"(?:{_form})\Z"), ["" if c == "\0" else c for c in _first]
    )
_Loader.add_constructor("integer", _Loader.integer)
_Loader.add_constructor("leading zero", _Loader.leading_zero)
_Loader.add_constructor("real", _Loader.real)


class _Writer(yaml.SafeDumper):
    """PyYAML's writer, which quotes what YAML 1.1 takes for no word; here 1.2's as well."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: an alias is not read."""
        return True

    def text(self, text: str) -> yaml.ScalarNode:
        """A string, in quotes where it would be read as anything else."""
        style = "'" if any(re.fullmatch(form, text) for _, form, _ in _FORMS) else None
        if re.search("[\n\x85\u2028\u2029]", text):
            style = '"'  # Escaped; in other styles the writer and the reader fold lines.
        return self.represent_scalar(_STRING, text, style=style)


_Writer.add_representer(str, _Writer.text)


def write_yaml(value: Any) -> str:
    """Plain data as a YAML document that ``parse_yaml`` reads back equal, and YAML 1.1 as well.

    ``value`` is None, a bool, an int, a float, a string, or lists and mappings (with strings for
    keys) of such, within the bounds that reading has.
    """
    text = yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=math.inf)
    return str(text)


def read_yaml(path: str | Path, what: str) -> Any:
    """A YAML file, which is a ``what``, as None, bool, int, float, str, list and dict.

    Raises RequestError, one line, for a file that ``files.read_text`` refuses and for what
    ``parse_yaml`` refuses.
    """
    return parse_yaml(read_text(path, what, MAX_BYTES), str(path))


def parse_yaml(text: str, what: str) -> Any:
    """One YAML document as plain data. Raises RequestError with the line of what is wrong."""
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        how = "" if isinstance(error, _Refused) else "not plain YAML: "
        raise RequestError(f"{what}: {line}{how}{' '.join(problem.split())}") from None
