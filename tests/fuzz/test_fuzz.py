"""Mutated inputs, for a moment in ``make test`` and for a minute in ``make test-all``.

WORKBENCH_FUZZ_S says how many seconds all targets have together. What goes wrong is to be mended
where it arises, and the input added to ``corpus/TARGET/``.
"""

import json
import os
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.server import fault
from tests.fuzz.targets import TARGETS, seeds

SECONDS = float(os.environ.get("WORKBENCH_FUZZ_S", "6")) / len(TARGETS)
EACH_S = 0.03
"""About what an input takes."""
NASTY = (
    0,
    -1,
    1,
    3,
    10**6,
    10**30,
    10**400,
    1e308,
    5e-324,
    float("nan"),
    1.5,
    True,
    None,
    "",
    "x",
    "\0",
    "\ud800",
    "x" * 5000,
    [],
    {},
    [[[[]]]],
    [None],
    {"a": 1},
    "../../etc/passwd",
    "https://evil.example/x",
    "9" * 5000,
)
TOKENS = (
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"[" * 200,
    b"{" * 200,
    b"&a [*a, *a]",
    b"!!int x",
    b"!!python/object:os.system",
    b"9" * 5000,
    b"1e999",
    b"-",
    b": ",
    b"\n",
    b"\r",
    b'"',
    b"null",
    b"2001-01-01",
    b"<<: *a",
    b"\xef\xbb\xbf",
    b"%YAML 9\n",
)


def nest(value: object, chance: random.Random) -> object:
    """``value`` with one part of it, however deep, in another's place."""
    if chance.random() < 0.3 or not isinstance(value, (dict, list)) or not value:
        return chance.choice(NASTY)
    if isinstance(value, dict):
        name = chance.choice(list(value))
        if chance.random() < 0.1:
            return {key: each for key, each in value.items() if key != name}
        return {**value, name: nest(value[name], chance)}
    place = chance.randrange(len(value))
    return [*value[:place], nest(value[place], chance), *value[place + 1 :]]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """``content`` with a few changes: of a JSON document's values, or of bytes."""
    if chance.random() < 0.6:
        try:
            document = json.loads(content)
            for _ in range(chance.randint(1, 3)):
                document = nest(document, chance)
            return json.dumps(document).encode() + b"\n"
        except ValueError:
            pass
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 30))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 2:
            del data[at : at + chance.choice((1, 3, 100, 5000))]
        elif kind == 3:
            data[at : at + 40] = chance.randbytes(40)
        else:
            there = chance.randrange(len(data) + 1)
            data[at : at + 100] = data[there : there + 100]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_sound_is_taken_and_what_once_went_wrong_is_refused(name: str) -> None:
    for content in seeds(name):
        found = fault(TARGETS[name], content)
        assert found is None, found


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_ends_in_anything_but_a_result_or_one_line(name: str) -> None:
    until = time.monotonic() + SECONDS

    # A short look is the same every time; a long one goes elsewhere every time.
    @settings(
        max_examples=max(10, int(SECONDS / EACH_S)),
        deadline=None,
        database=None,
        derandomize=SECONDS <= 1,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**63))
    def fuzz(number: int) -> None:
        if time.monotonic() < until:
            chance = random.Random(number)
            content = mutated(chance.choice(seeds(name)), chance)
            found = fault(TARGETS[name], content)
            assert found is None, f"{content[:3000]!r}\n{found}"

    fuzz()


def endless(content: bytes, _: object) -> None:
    while content:
        pass


def hungry(content: bytes, _: object) -> None:
    bytearray(10 * 2**30)


@pytest.mark.parametrize(("target", "says"), [(hungry, "MemoryError")])
def test_the_server_tells_what_went_wrong(target: object, says: str) -> None:
    assert says in str(fault(target, b"x"))


def test_the_server_ends_what_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.server.CPU_S", 1)
    said = str(fault(endless, b"x"))
    assert "SIGXCPU" in said or "SIGALRM" in said, said  # The clock's, on a busy machine.
