"""Every line of ``ask`` has an answer of one line, whatever an earlier one did."""

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small import SHARED
from workbench.commands.ask import MAX_LINE, answer_all

GOOD = {"do": "names"}
CELL = {"do": "predict", "cell": {"num_visual": 64}, "device": "h100-80gb"}


def answers(*lines: bytes) -> list[dict]:
    found: list[dict] = []
    answer_all(io.BytesIO(b"".join(line + b"\n" for line in lines)), found.append)
    return found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"\xff{}", "cannot be read as UTF-8"),
        (b'{"do": [1]}', "whose 'do' is one of predict"),
        (b'{"do": {}}', "whose 'do' is one of predict"),
        (b"[]", "whose 'do' is one of predict"),
        (b'{"do": "predict"}', "'cell' is an object"),
        (b'{"do": "predict", "cell": {"num_visual": ' + b"9" * 5000 + b"}}", "not JSON"),
        (b'{"do": "predict", "cell": {"num_visual": "x"}, "device": "cpu"}', "num_visual 'x'"),
        (b'{"do": "predict", "cell": {"1 2": 3}, "device": "cpu"}', "num_visual: is missing"),
        (b'{"do": "limit", "cell": {"num_visual": 1}, "device": "\\u0000"}', "device"),
        (
            b'{"do": "names", "do": "limit", "cell": {}}',
            "question: 'do': given twice; leave one out",
        ),
        (b'{"do": "predict", "cell": {"batch": 1, "batch": 2}}', "'batch': given twice"),
        (b"x" * (3 * MAX_LINE), "longer than 100,000 bytes"),
    ],
)
def test_a_broken_question_is_one_line_and_the_next_is_answered(line: bytes, message: str) -> None:
    broken, next_ = answers(line, json.dumps(GOOD).encode())
    assert message in broken["error"]
    assert "\n" not in broken["error"]
    assert "mistral-7b-v0.3" in next_["models"]


def test_the_last_line_needs_no_end() -> None:
    found: list[dict] = []
    answer_all(io.BytesIO(json.dumps(GOOD).encode()), found.append)
    assert len(found) == 1


def test_a_model_with_code_of_its_own_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**SHARED, "model_type": "own", "auto_map": {"AutoConfig": "configuration_x.X"}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    (tmp_path / "configuration_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    cell = {**CELL, "cell": {"num_visual": 8, "model": str(tmp_path)}}
    first, second = answers(json.dumps(cell).encode(), json.dumps(GOOD).encode())
    assert "is never run" in first["error"]
    assert "models" in second
    assert sys.stdin.tell() == 0
    assert not (tmp_path / "ran").exists()


def test_a_fault_of_ours_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> dict:
        raise SystemExit("two\nlines")

    monkeypatch.setitem(sys.modules["workbench.commands.ask"]._ANSWERS, "names", fail)
    (found,) = answers(json.dumps(GOOD).encode())
    assert found == {"error": "SystemExit: two lines"}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b" ")), max_size=5))
def test_as_many_answers_as_lines(lines: list[bytes]) -> None:
    found = answers(*lines)
    assert len(found) == len(lines)
    assert all(set(answer) == {"error"} for answer in found)
