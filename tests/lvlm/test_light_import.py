"""Imports that are put off change no number, and whoever needs them gets the whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.lvlm import light_import
from workbench.lvlm.light_import import TRIED_WITH, WHOLE, defer_imports
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import Cell, make_cell

ROOT = Path(__file__).parents[2]
STEP = {"scope": "decoder", "pass": "train", "num_text": 50}
CELLS = [
    {
        "attention": "d_attn",
        "kernel": "flash",
        "num_visual": 74_000,
        "checkpoint": True,
        "zero": 3,
        "world_size": 32,
        **STEP,
    },
    {"attention": "s_attn", "kernel": "eager", "num_visual": 729, "pass": "train"},
    {"model": "gemma-2-9b", "kernel": "sdpa", "num_visual": 5000, **STEP},
    {
        "model": "gemma-3-4b",
        "attention": "d_attn_cascade",
        "kernel": "flex",
        "num_visual": 5000,
        "scope": "decoder",
        "pass": "decode",
    },
    {
        "model": "qwen2.5-vl-7b",
        "attention": "d_attn_tanh",
        "num_visual": 3000,
        "layout": "T,V,T",
        **STEP,
    },
    {
        "model": "llama-3.2-1b",
        "attention": "himix",
        "kernel": "cudnn",
        "num_visual": 3000,
        "pass": "train",
    },
    {
        "model": "qwen2-0.5b",
        "attention": "d_attn",
        "chunk": 512,
        "fold": True,
        "tiled": True,
        "kernel": "efficient",
        "num_visual": 3000,
        "pass": "train",
    },
    {
        "model": "vicuna-7b",
        "attention": "d_attn_full",
        "kernel": "math",
        "num_visual": 3000,
        "compile": True,
        "pass": "train",
    },
]
"""Of every family, among them every kernel whose operators are traced."""

PREDICT_ALL = """
import json, sys
from workbench.lvlm import light_import
assert light_import.defer_imports()
def needed(module):
    raise AssertionError(f"{module} was needed")
light_import._begin_anew = needed
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
for fields in json.load(sys.stdin):
    record = predict(make_cell(**fields), "h100-80gb")
    heavy = [n for n in ("sympy", "torch._dynamo", "torch._inductor", "scipy")
             if type(sys.modules.get(n)).__name__ == "module"]
    print(json.dumps([heavy, record.document()]))
"""


def told(document: dict[str, Any]) -> dict[str, Any]:
    """A record's document without the moments at which it was made."""
    rest = ("started_at", "duration_s", "environment")
    return {name: value for name, value in document.items() if name not in rest}


def run(code: str, text: str = "", **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_prediction_is_the_one_of_whole_imports() -> None:
    lines = [json.loads(line) for line in run(PREDICT_ALL, json.dumps(CELLS))]
    assert len(lines) == len(CELLS)
    for fields, (_, document) in zip(CELLS, lines, strict=True):
        whole = predict(make_cell(**fields), "h100-80gb").document()
        assert told(document) == told(json.loads(json.dumps(whole))), fields
    assert lines[0][0] == [], "FlexAttention alone loads some of it"


def test_the_program_predicts_with_them() -> None:
    """And only the program: a test or a notebook goes on to other things."""
    cell: Cell = make_cell(**CELLS[1])
    words = f"predict --kernel eager --pass train --visual {cell.num_visual} --json"
    code = (
        "import sys, atexit; from workbench.cli import main; sys.argv[1:] = "
        f"{words.split()!r}; atexit.register(lambda: print(type(sys.modules['torch._dynamo'])))\n"
    )
    *document, kind = run(f"{code}main()")
    assert "_StandIn" in kind
    assert json.loads("\n".join(document))["metrics"] == predict(cell, "h100-80gb").metrics
    assert "'module'" in run(f"{code}main({words.split()!r})")[-1]


NEEDS_MORE = f"""
import os
from workbench.lvlm.light_import import defer_imports
if not defer_imports():
    print(os.environ[{WHOLE!r}])
else:
    from torch.distributed.tensor import DTensor, Replicate
    assert not isinstance(3, DTensor)
    Replicate()
    DTensor.from_local(3)
    print("not reached")
"""


def test_whoever_needs_more_starts_anew(tmp_path: Path) -> None:
    script = tmp_path / "needs_more.py"
    script.write_text(NEEDS_MORE)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "torch.distributed.tensor"


SYMBOLS = """
from workbench.lvlm import light_import
light_import.defer_imports()
import torch
from torch.fx.experimental import symbolic_shapes as shapes
def needed(module):
    raise LookupError
light_import._begin_anew = needed
def needs_more(name, *args, **kwargs):
    try:
        getattr(shapes, name)(*args, **kwargs)
    except LookupError:
        return name
t = torch.empty(2, 3, device="meta")
print(shapes.sym_eq(t.size(), (2, 3)), shapes.sym_eq((2,), (2, 3)), shapes.sym_and(True, False),
      shapes.sym_or(False, True), shapes.guard_or_false(True), shapes.expect_true(False),
      shapes.free_unbacked_symbols(t), shapes.is_nested_int(3), shapes.has_guarding_hint(3),
      shapes.guarding_hint_or_throw(3), shapes.statically_known_true(True),
      shapes.statically_known_false(True))
print(needs_more("sym_eq", 2.5, 2), needs_more("guard_or_false", 1),
      needs_more("expect_true", True, skip=1), needs_more("GuardOnDataDependentSymNode", 1))
"""


def test_plain_sizes_need_no_symbols_and_all_else_does() -> None:
    plain, other = run(SYMBOLS)
    assert plain == "True False False True True False set() False True 3 True False"
    assert other == "sym_eq guard_or_false expect_true GuardOnDataDependentSymNode"


def test_only_for_versions_that_were_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert {name: pins[name] for name in TRIED_WITH} == TRIED_WITH
    assert not defer_imports(), "torch and transformers are here by now"
    other = f"{WHOLE!r}"
    code = (
        "from workbench.lvlm import light_import as light\n"
        "light.TRIED_WITH = {**light.TRIED_WITH, 'transformers': '1.0'}\n"
        "print(light.defer_imports(), light.are_deferred())"
    )
    assert run(code) == ["False False"]
    assert run(
        f"from workbench.lvlm.light_import import *; print({other}, defer_imports())",
        **{WHOLE: "1"},
    )[0].endswith("False")
    assert not light_import.are_deferred()
