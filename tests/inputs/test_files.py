"""Files from outside: what is no regular, bounded UTF-8 file is one line, at once."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.inputs.files import (
    parse_json,
    read_bytes,
    read_json,
    read_text,
    require_file,
    shown,
    write_text,
)
from workbench.vocabulary.errors import RequestError

READERS = (read_bytes, read_text, read_json)


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def large(folder: Path) -> Path:
    path = folder / "large"
    with path.open("wb") as file:
        file.truncate(20 * 10**9)
    return path


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (fifo, "not a regular file"),
        (loop, "cannot be read: Too many levels"),
        (lambda folder: folder, "a folder"),
        (lambda folder: folder / "absent", "absent': no such file"),
        (lambda folder: folder / ("x" * 300), "cannot be read: File name too long"),
        (lambda folder: f"{folder}/a\0b", "null byte"),
        (lambda folder: "/dev/zero", "not a regular file"),
        (lambda folder: "/dev/full", "not a regular file"),
        (large, "too large, at most 1 KiB are read"),
    ],
)
def test_what_is_no_file_to_read_is_one_line(
    read: Callable, make: Callable[[Path], Path], says: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(RequestError, match=says) as caught:
        read(path, "thing", 1024)
    line = str(caught.value)
    assert line.startswith("thing '")
    assert line.isprintable()
    assert len(line) < 400


def test_a_large_file_is_not_taken_into_memory(tmp_path: Path) -> None:
    path = large(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="too large"):
            read_bytes(path, "thing", 1000)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_at_its_bound_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, "thing", 100) == b"x" * 100
    with pytest.raises(RequestError, match="too large, at most 99 B"):
        read_bytes(path, "thing", 99)


def test_a_name_that_is_no_utf_8_is_read_and_shown(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(folder)
    path = Path(os.fsdecode(folder)) / "a.json"
    path.write_text("[1]")
    assert read_json(path, "thing", 100) == [1]
    assert shown(path).isascii()


def test_bytes_that_are_no_utf_8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"ab\xff")
    with pytest.raises(RequestError, match="as UTF-8 text: byte 2 is none"):
        read_text(path, "thing", 100)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1", "not JSON: Expecting"),
        ("", "not JSON"),
        ("9" * 5000, "an integer of 5,000 digits, at most 100"),
        ('{"a": -' + "9" * 100 + "}", "an integer of 101"),
        ("[" * 33 + "]" * 33, "at most 32 levels"),
        ('{"a":' * 40 + "1" + "}" * 40, "at most 32 levels"),
        ("[" * 100_000, "at most 32 levels"),
        ('{"a": {"b": 1, "c": 2, "b": 1}}', "thing: 'b': given twice; leave one out"),
    ],
)
def test_json_of_no_use_is_one_line(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        parse_json(text, "thing")
    assert str(caught.value).startswith("thing: ")
    assert len(str(caught.value)) < 200


def test_json_within_the_bounds_is_exact() -> None:
    assert parse_json("9" * 100, "thing") == 10**100 - 1
    assert parse_json("[" * 32 + "]" * 32, "thing") is not None
    assert parse_json('{"a": [1, 2.5, null, "x"]}', "thing") == {"a": [1, 2.5, None, "x"]}


def test_the_facts_of_a_file_without_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert require_file(path, "thing").st_size == 3
    with pytest.raises(RequestError, match="not a regular file"):
        require_file(fifo(tmp_path), "thing")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (fifo, "not a regular file"),
        (lambda folder: folder, "a folder"),
        (lambda folder: "/dev/full", "not a regular file"),
        (lambda folder: folder / "x" / "y", "cannot be written: No such file"),
        (lambda folder: folder / ("x" * 300), "cannot be written: File name too long"),
        (lambda folder: f"{folder}/a\0b", "null byte"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    make: Callable[[Path], Path], says: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        write_text(make(tmp_path), "thing", "text")
    assert str(caught.value).isprintable()


def test_a_file_is_written_in_the_place_of_a_longer_one(tmp_path: Path) -> None:
    for text in ("a longer text ☃", "short"):
        write_text(tmp_path / "a", "thing", text)
        assert (tmp_path / "a").read_text(encoding="utf-8") == text
