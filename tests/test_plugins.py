"""Plug-ins: packages of other people, installed beside the workbench."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.models import FAMILIES, MODELS
from workbench.lvlm.reduce import REDUCERS
from workbench.vocabulary.devices import DEVICES, Device
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.registry import Registry

ROOT = Path(__file__).parents[1]
MEAN = """
from workbench.lvlm.attention.decomposed import Decomposed
from workbench.lvlm.attention.gated import TwoBranchLayer

class MeanLayer(TwoBranchLayer):
    def combine(self, sa, xa):
        return sa + 0.5 * (xa - sa)

class Mean(Decomposed):
    name = "d_attn_mean"
    label = "D-Attn mean"
    layer_class = MeanLayer

SYSTEM = Mean()
"""
MODEL = """
from dataclasses import replace
from workbench.lvlm.models import MODELS

MODEL = replace(MODELS["tinyllama-1.1b"], source="an example")
"""
DEVICE = """
from workbench.vocabulary.devices import DEVICES

DEVICE = DEVICES["h100-80gb"].model_copy(update={"name": "h100-of-theirs"})
"""


def install(folder: Path, modules: dict[str, str], offers: dict[str, dict[str, str]]) -> Path:
    """What an installer leaves of a package: its modules, and the names that it offers."""
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    facts = folder / "theirs-1.0.dist-info"
    facts.mkdir(exist_ok=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    lines = []
    for group, named in offers.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in named.items())]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def words() -> Registry[str]:
    """A registry with one entry that takes plug-ins."""
    registry: Registry[str] = Registry("word")
    registry.add("ours", "ours")
    registry.take_plugins("workbench.words", str)
    return registry


def test_a_plug_in_is_loaded_where_it_is_named(installed: Path) -> None:
    modules = {"good_words": 'WORD = "theirs"', "bad_words": "1 / 0"}
    offers = {"good": "good_words:WORD", "bad": "bad_words:WORD"}
    install(installed, modules, {"workbench.words": offers})
    registry = words()
    assert list(registry) == ["ours", "good", "bad"]
    assert len(registry) == 3
    assert "bad" in registry
    assert registry["ours"] == "ours"
    assert not {"good_words", "bad_words"} & set(sys.modules)
    assert registry["good"] == registry["good"] == "theirs"
    assert "bad_words" not in sys.modules


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            "1 / 0",
            r"word 'one': plug-in of theirs \(their_word:WORD\) cannot be loaded: "
            "ZeroDivisionError: division by zero",
        ),
        ("", "AttributeError: module 'their_word' has no attribute 'WORD'"),
        ("WORD = 1", r"\(their_word:WORD\) is a int, not a str"),
    ],
)
def test_one_that_fails_is_one_line(
    installed: Path, monkeypatch: pytest.MonkeyPatch, code: str, line: str
) -> None:
    monkeypatch.delitem(sys.modules, "their_word", raising=False)
    install(installed, {"their_word": code}, {"workbench.words": {"one": "their_word:WORD"}})
    with pytest.raises(RequestError, match=line) as caught:
        words()["one"]
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match=line):
        dict(words())


def test_a_name_that_is_taken_is_refused(installed: Path) -> None:
    install(installed, {"w": 'WORD = "x"'}, {"workbench.words": {"ours": "w:WORD"}})
    for ask in (list, len, lambda registry: registry["ours"]):
        with pytest.raises(RequestError, match=r"word 'ours': plug-in of theirs.*is taken"):
            ask(words())


def test_an_entry_of_another_name_is_refused(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        installed,
        {"their_card": DEVICE},
        {"workbench.devices": {"x": "their_card:DEVICE"}},
    )
    registry: Registry[Device] = Registry("device")
    registry.take_plugins("workbench.devices", Device)
    with pytest.raises(RequestError, match="calls itself 'h100-of-theirs'"):
        registry["x"]


def test_the_registries_that_take_them() -> None:
    groups = {registry._group for registry in (SYSTEMS, REDUCERS, MODELS, FAMILIES, DEVICES)}
    kinds = ("attention", "reducers", "models", "families", "devices")
    assert groups == {f"workbench.{kind}" for kind in kinds}
    page = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    assert [group for group in groups if f"`{group}`" not in page] == []


def test_the_program_predicts_what_others_brought(tmp_path: Path) -> None:
    install(
        tmp_path,
        {"their_mean": MEAN, "their_model": MODEL, "their_card": DEVICE},
        {
            "workbench.attention": {"d_attn_mean": "their_mean:SYSTEM"},
            "workbench.models": {"their-model": "their_model:MODEL"},
            "workbench.devices": {"h100-of-theirs": "their_card:DEVICE"},
        },
    )
    ask = (
        "predict --model their-model --attention d_attn_mean --kernel eager --visual 64 --json"
        " --device h100-of-theirs"
    )
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *ask.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["device"], record["status"]) == ("h100-of-theirs", "ok")
    assert record["metrics"]["flops"] > 0
