"""YAML from outside: what is written is what is read, and everything else is one line."""

import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.inputs.yaml_text import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml, write_yaml
from workbench.vocabulary.errors import RequestError

WORDS = ",".join(f"w{i}" for i in range(80))
BOMB = "a: &a [x,x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("256", 256),
        ("-3", -3),
        ("0", 0),
        ("1_000_000", 1_000_000),
        ("+5", 5),
        ("1.5", 1.5),
        (".5", 0.5),
        ("209.5e+12", 209.5e12),
        ("1e15", 1e15),
        ("1.0e+15", 1e15),
        ("0.25", 0.25),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("2001-12-14", "2001-12-14"),
        ("2001-99-99", "2001-99-99"),
        ("'0256'", "0256"),
        ('"1"', "1"),
        ("=", "="),
        ("<<", "<<"),
        ("h100-80gb", "h100-80gb"),
    ],
)
def test_a_value_is_what_is_written(text: str, value: object) -> None:
    found = parse_yaml(f"a: {text}", "f")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("visual: [256]\ntext: 3\nvisual: [512]", "line 3: visual: given twice, first in line 1"),
        ("a: {b: 1, 'b': 2}", "line 1: b: given twice"),
        ("a: 1\nb: [0256]", "line 2: 0256: has a leading zero"),
        ("a: -010", "line 1: -010: has a leading zero"),
        ("a: !!int abc", "line 1: a tag (tag:yaml.org,2002:int) is not read"),
        ("a: !!timestamp 2001-99-99", "line 1: a tag"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: a tag"),
        ("a: !own b", "line 1: a tag (!own)"),
        (BOMB, "line 2: an alias (*a) is not read"),
        ("a: &a {b: *a}", "line 1: an alias"),
        ("<<: &b {a: 1}\nc:\n  <<: *b", "line 3: an alias"),
        ("a: " + "9" * 5000, "line 1: an integer of 5,000 digits, at most 100"),
        ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, f"line 1: more than {MAX_DEPTH} levels"),
        ("[" * 100_000, f"line 1: more than {MAX_DEPTH} levels"),
        ("- " * 60_000, f"line 1: more than {MAX_DEPTH} levels"),
        ("? [a]\n: b", "line 1: a key is a word"),
        ("1: 2", "line 1: a key is a word"),
        ("{[1]: 2}", "line 1: a key is a word"),
        ("a: 1\n--- \nb: 2", "line 2: not plain YAML"),
        ("a: 'b", "line 1: not plain YAML"),
        ("\x00", "not plain YAML"),
    ],
)
def test_what_is_not_read_is_one_line(text: str, words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as caught:
            parse_yaml(text, "f")
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(RequestError, match="too large, at most 128 KiB"):
        read_yaml(path, "sweep")
    path.write_text("a:\n  - b\n  - 0b1\n")
    assert read_yaml(path, "sweep") == {"a": ["b", "0b1"]}


WORDS_LIKE_NUMBERS = (
    "1e3",
    "1e-3",
    "12e03",
    "08",
    "0256",
    "1_0",
    "1.",
    ".5",
    "+1",
    "-.inf",
    ".NaN",
    "0x1F",
    "0o17",
    "1:30",
    "~",
    "",
    "null",
    "yes",
    "off",
    "=",
    "<<",
    "2001-12-14",
    "- a",
    "a: b",
    "#",
    "a #b",
    "'",
    '"',
    "!a",
    "&a",
    "*a",
    "%",
    "@",
    "`",
    " a ",
    "a\nb",
    "\n a\n",
    "\t",
    "\0",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ud800",
    "\U0001f600",
    "?",
    "-",
    "...",
    "---",
    "x" * 200,
    "a b " * 80,
)
TEXT = (
    st.text(max_size=20)
    | st.sampled_from(WORDS_LIKE_NUMBERS)
    | st.text(alphabet="0123456789.eE+-_:xo ", max_size=8)
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**99), 10**99) | TEXT | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def kinds(value: object) -> object:
    """``value`` with the type of each part: 1, 1.0 and True are equal in Python."""
    if isinstance(value, dict):
        return {key: kinds(part) for key, part in value.items()}
    return [kinds(part) for part in value] if isinstance(value, list) else (type(value), value)


@pytest.mark.parametrize("text", WORDS_LIKE_NUMBERS)
def test_any_text_is_read_back_as_text(text: str) -> None:
    value = {"a": text, text + "b": [text]}
    assert parse_yaml(write_yaml(value), "f") == value
    if text != "\ud800":  # Some readers of YAML 1.1 take no surrogate.
        assert yaml.safe_load(write_yaml(value)) == value


@given(PLAIN)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(value: object) -> None:
    text = write_yaml({"value": value, "again": [value, value]})
    read = parse_yaml(text, "f")
    assert kinds(read) == kinds({"value": value, "again": [value, value]})


def test_a_word_is_written_as_it_is() -> None:
    value = {"name": "a", "visual": [256, 512], "text": "1e3", "x": 1e17}
    wanted = "name: a\nvisual:\n- 256\n- 512\ntext: '1e3'\nx: 1.0e+17\n"
    assert write_yaml(value) == wanted


@given(st.text(alphabet="ab:-[]{},&*!|>'\"#%@`?~ \n\t0123.", max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_data_or_one_line(text: str) -> None:
    said = ""
    try:
        parse_yaml(text, "f")
    except RequestError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1
