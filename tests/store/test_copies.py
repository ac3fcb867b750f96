"""Rows that are passed from one store into another without a record in between."""

from collections.abc import Callable
from typing import Any

import pytest

from workbench.store.copies import sound_row
from workbench.store.rows import COLUMNS, decode, encode
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.record import Environment, Record

RUN = Environment(host="a", torch="2.13").model_dump_json()

RECORDS = {
    "plain": {},
    "every text": {
        "flags": ["cold", 'é "x"'],
        "error": 'it\n"failed"',
        "details": {"a": {"b": [1, 2.5, None, True, "é"]}},
        "environment": Environment(host="b", card="x"),
        "samples": {"time_s": [0.5, 1.0], "energy_j": []},
    },
    "exact numbers": {
        "metrics": {"flops": 2**70, "a": -(2**63), "b": 2**63 - 1, "c": None, "d": 1e99, "e": -0.0}
    },
    "no visual token": {"cell": make_cell(num_visual=0)},
    "long texts": {"details": {"x": "y" * 20_000}, "samples": {"time_s": [1 / 7] * 2_000}},
}

CHANGES: dict[str, tuple[Any, ...]] = {
    "key": ("0" * 16,),
    "source": ("guessed",),
    "device": (b"cpu", 1),
    "status": ("fine",),
    "started_at": (b"", 1),
    "duration_s": (7, -1.0, float("inf"), "1", "x"),
    "num_samples": (3, 1.0, True),
    "num_visual": (-1, 2.0, 10**10, None),
    "cell": (" {}", '{"attention":"s_attn"}', '{"nonsense":1}', "[]", "{"),
    "metrics": (
        "[]",
        '{"a": 1}',
        '{"a":true}',
        '{"a":1.50}',
        '{"a":1e999}',
        '{"a":1e101}',
        '{"a":"12"}',
        '{"a":"0012"}',
        '{"a":[1]}',
        '{"a":1,"a":2}',
        '{"a":12345678901234567890}',
    ),
    "flags": ('"a"', "[1]", "[ ]"),
    "error": (1,),
    "environment": ("{}", '{"host": "b"}', "[]", '{"host":3}'),
    "samples": ('{"a":[1]}', '{"a":[true]}', '{"a":["1"]}', '{"a":1}', '{"a":[1e101]}', "[]"),
    "details": ("null", "[]", " {}", '{"a":1,"a":2}'),
}


def row_of(**fields: Any) -> list[Any]:
    own = {"cell": make_cell(num_visual=7), "metrics": {"time_s": 0.5, "flops": 12}, **fields}
    record = Record(
        **{"source": "measured", "device": "cpu", "status": "ok", "duration_s": 1.5, **own}
    )
    return list(encode(record, Environment()))


def outcome(way: Callable[[list[Any]], Any], row: list[Any]) -> Any:
    try:
        return way(row)
    except ValueError as error:
        return str(error)


def long_way(row: list[Any]) -> tuple[Any, list[str]]:
    record = decode(row, RUN)
    written = list(encode(record, Environment(host="none such")))
    written[COLUMNS.index("environment")] = record.environment.model_dump_json()
    return tuple(written), sorted(record.metrics)


def short_way(row: list[Any]) -> tuple[Any, list[str]]:
    written, metrics = sound_row(row, RUN)
    return written, sorted(metrics)


@pytest.mark.parametrize("kind", RECORDS)
def test_a_row_is_what_its_record_would_be_written_as(kind: str) -> None:
    row = row_of(**RECORDS[kind])
    assert short_way(row) == long_way(row)


@pytest.mark.parametrize("column", CHANGES)
def test_a_row_that_was_changed_by_hand_is_what_is_read_from_it(column: str) -> None:
    for value in CHANGES[column]:
        row = row_of()
        row[COLUMNS.index(column)] = value
        found, wanted = outcome(short_way, row), outcome(long_way, row)
        assert repr(found) == repr(wanted)  # True is 1 to ==.
