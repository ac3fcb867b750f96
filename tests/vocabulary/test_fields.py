"""A wrong value is told in words: its field, the value, and what would be right."""

import copy
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from workbench.cli import main
from workbench.inputs.sweep_file import load_sweep
from workbench.vocabulary.calibration import Calibration
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import PATTERNS
from workbench.vocabulary.pictures import Pictures, make_pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.sweep import Grid, Sweep, make_point


def patterns(part: Any) -> Iterator[str]:
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for child in children:
        yield from patterns(child)
    if isinstance(part, dict) and isinstance(part.get("pattern"), str):
        yield part["pattern"]


@pytest.mark.parametrize("kind", [Calibration, Cell, Pictures, Protocol, Sweep])
def test_every_form_of_a_text_has_words(kind):
    assert set(patterns(kind.model_json_schema())) <= set(PATTERNS)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: make_pictures(resolution="0x0"),
            "resolution '0x0': WIDTHxHEIGHT in pixels, each at least 1, such as 640x480",
        ),
        (
            lambda: make_cell(num_visual=1, model="a\nb"),
            r"model 'a\nb': a name has no control characters, such as a line's end",
        ),
    ],
)
def test_a_form_is_told_in_words(make, line):
    with pytest.raises(RequestError) as refusal:
        make()
    assert str(refusal.value) == line


def test_a_calibration_file_s_forms_are_told_in_words(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"device": "a\nb"}))
    with pytest.raises(RequestError) as refusal:
        Calibration.read(path)
    assert f"calibration {path}: " in str(refusal.value)
    assert "[^" not in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--set x", "--set 'x': write name=value, such as side=2"),
        (
            "--set x=1 --set y=2",
            "--set x: s_attn has no settings\nworkbench: --set y: s_attn has no settings",
        ),
        ("--lora x", "--lora 'x': 'x': write name=value, such as r=16"),
    ],
)
def test_a_refusal_names_the_option(words, line, capsys):
    with pytest.raises(SystemExit) as end:
        main(["predict", "--visual", "9", *words.split()])
    assert (end.value.code, capsys.readouterr().err) == (2, f"workbench: {line}\n")


def test_a_protocol_s_fields_are_named_as_their_options():
    protocol = {"max_seconds": 0, "timeout_s": -1}
    with pytest.raises(RequestError) as refusal:
        make_point(cell={"num_visual": 1}, source="measured", device="cpu", protocol=protocol)
    lines = ["max_seconds 0: must be more than 0", "timeout_s -1: must be more than 0"]
    assert str(refusal.value).split("; ") == lines


@pytest.mark.parametrize("written", ["1e9", "1G", "1_000_000_000", 1e9, 10**9])
def test_bytes_are_written_as_any_number(written):
    assert make_cell(num_visual=1, memory_cap=written).memory_cap == 10**9
    assert Protocol(memory_limit=written).memory_limit == 10**9


def test_yaml_s_real_numbers_are_whole_where_they_are_counts(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("visual: 1e3\nmemory_cap: 4e10\nprotocol: {memory_limit: 40G}\n")
    (point,) = load_sweep(path).points()
    assert (point.cell.num_visual, point.cell.memory_cap) == (1000, 4 * 10**10)
    assert point.protocol.memory_limit == 4 * 10**10
    path.write_text("visual: 1.5\nmemory_cap: 1.5\n")
    with pytest.raises(RequestError, match=r"visual 1\.5: write a whole number"):
        load_sweep(path)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: Cell(attention="nope", visual=-1),
            "num_visual: is missing; visual -1: there is no such field; did you mean num_visual?",
        ),
        (lambda: Cell(num_visual=9).replace(batch=0), "batch 0: must be at least 1"),
        (
            lambda: Cell(num_visual=9, num_text=0).at(0),
            "num_visual and num_text are both 0: there is no token to compute",
        ),
        (lambda: Protocol(precision=2), "precision 2: must be less than 1"),
        (lambda: Grid(visual=(1, -1)), "visual.1 -1: must be at least 0"),
        (lambda: Grid(visual=1).points()[0].cell.replace(chunk=0), "chunk 0: must be at least 1"),
        (lambda: Sweep(name="a", grids=({"visual": "x"},)), "grids.0.visual.0 'x': write a whole"),
    ],
)
def test_a_wrong_value_in_python_is_one_line(make, line):
    with pytest.raises(RequestError) as refusal:
        make()
    assert str(refusal.value).startswith(line)
    assert "\n" not in str(refusal.value)


def test_a_cell_is_copied_and_kept_as_any_model():
    cell = Cell(num_visual=9, attention="d_attn", pass_="train")
    assert pickle.loads(pickle.dumps(cell)) == copy.deepcopy(cell) == cell
    assert Cell.model_validate_json(cell.model_dump_json(by_alias=True)) == cell
    assert cell.model_copy(update={"num_visual": 10}) == cell.at(10)
    with pytest.raises(ValidationError):  # With it a document's reader tells where a fault is.
        Cell.model_validate({"num_visual": -1})
