"""What a whole sweep survives, caused for real: kills, a full disk, a wrong clock, no room."""

import ast
import ctypes
import os
import pickle
import random
import resource
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.small import small_model
from workbench.store import Store
from workbench.vocabulary.errors import RequestError

ROOT = Path(__file__).parents[2]
CLOCK = """
import time
real, calls = time.time, [0]

def set_back():
    calls[0] += 1
    return real() - (86_400 if calls[0] % 40 >= 20 else 0)

time.time = set_back
"""
"""A clock that is set back by a day, and forth again, all the time."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_model("mistral", tmp_path_factory.mktemp("models"))


def spec(folder: Path, model: str, num_cells: int, source: str = "predicted") -> Path:
    path = folder / "spec.yaml"
    device = "h100-80gb" if source == "predicted" else "cpu"
    path.write_text(
        f"models: {model}\nvisual: {list(range(8, 8 + num_cells))}\ndtypes: float32\n"
        f"source: {source}\ndevice: {device}\nprotocol: {{min_samples: 1, precision: null}}\n"
    )
    return path


def start(path: Path, store: Path, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "workbench.cli", "sweep", str(path), "--store", str(store)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def run(path: Path, store: Path, **options: Any) -> tuple[int, str]:
    process = start(path, store, **options)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def cells(store: Path) -> Counter[str]:
    with Store.open(store) as opened:
        assert opened.check() == []
        return Counter(record.cell.key for record in opened.records())


@pytest.mark.parametrize("kills", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_a_coordinator_killed_at_random_moments(model: str, tmp_path: Path, kills: int) -> None:
    """At any moment of its life, and every other time among the cells, which take a fraction."""
    path, chance = spec(tmp_path, model, 30), random.Random(kills)
    stores = [tmp_path / "s0.db"]
    before: set[str] = set()
    while kills:
        store = stores[-1]
        process = start(path, store)
        if kills % 2:
            assert process.stderr is not None
            any(": ok" in line for line in process.stderr)  # Until a cell has ended, or the sweep.
        try:
            process.communicate(timeout=chance.uniform(0.0, 0.5 if kills % 2 else 5.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills -= 1
        there = set(cells(store)) if store.exists() else set()
        assert before <= there, "what was stored is lost"
        before = there
        if len(there) == 30:
            # Nothing left to be killed in.
            stores.append(tmp_path / f"s{len(stores)}.db")
            before = set()
    for store in stores:
        assert run(path, store)[0] == 0
        found = cells(store)
        assert len(found) == 30
        assert set(found.values()) == {1}


def test_a_clock_that_is_set_back(model: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    path, store = spec(tmp_path, model, 6, "measured"), tmp_path / "s.db"
    code, said = run(path, store, env={**os.environ, "PYTHONPATH": paths})
    assert code == 0, said
    assert len(cells(store)) == 6
    with Store.open(store) as opened:
        assert all((record.duration_s or 0) >= 0 for record in opened.records())
        assert all(s > 0 for r in opened.records() for s in r.samples["time_s"])
    assert run(path, store)[0] == 0
    assert sum(cells(store).values()) == 6


@pytest.fixture
def full_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own without a free byte."""
    folder = tmp_path / "full"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", bytes(folder), b"tmpfs", 0, b"size=64k") != 0:
        folder.chmod(0o500)  # As good as full for anyone but root, who may mount.
        yield folder
        folder.chmod(0o700)
        return
    with pytest.raises(OSError, match="No space left"):
        (folder / "fill").write_bytes(bytes(10**6))
    yield folder
    libc.umount(bytes(folder))


def test_no_space_for_temporary_files(model: str, tmp_path: Path, full_folder: Path) -> None:
    path, store = spec(tmp_path, model, 2, "measured"), tmp_path / "s.db"
    variables = {**os.environ, "TMPDIR": str(full_folder), "TEMP": str(full_folder)}
    code, said = run(path, store, env=variables)
    assert code == 0, said
    assert len(cells(store)) == 2


def test_a_sweep_on_a_full_disk_says_so_and_keeps_what_it_had(model: str, tmp_path: Path) -> None:
    path, store = spec(tmp_path, model, 120), tmp_path / "s.db"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    code, said = run(path, store, preexec_fn=limit)
    assert code == 1, said
    assert "disk full" in said
    assert "Traceback" not in said
    kept = set(cells(store))
    assert kept
    assert run(path, store)[0] == 0
    found = cells(store)
    assert kept < set(found)
    assert set(found.values()) == {1}


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("echo ran > bomb",)


def test_a_stranger_s_store_runs_nothing(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, pristine = tmp_path / "s.db", (stores / "like_default.db").read_bytes()
    monkeypatch.chdir(tmp_path)
    for column in ("cell", "metrics", "samples", "details", "flags", "environment", "error"):
        store.write_bytes(pristine)
        with sqlite3.connect(store) as connection:
            update = f"UPDATE records SET {column} = ?"
            connection.execute(update, (pickle.dumps(Bomb()),))
        connection.close()
        with pytest.raises(RequestError, match=r"s\.db"), Store.open(store) as opened:
            opened.records()
    assert not (tmp_path / "bomb").exists()


def test_nothing_unpickles() -> None:
    banned = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "cloudpickle"}
    for file in (ROOT / "workbench").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not banned & {name.partition(".")[0] for name in names}, file
            if isinstance(node, ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                assert (owner, node.attr) not in (("torch", "load"), ("pd", "read_pickle")), file
