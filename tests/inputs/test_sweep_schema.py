"""The schema takes every sweep that is one, and refuses what is none."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from workbench.inputs.sweep_file import load_sweep
from workbench.inputs.sweep_schema import sweep_schema
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.sweep import AXES, CELL_FIELDS, RENAMED, SINGULAR, Grid

ROOT = Path(__file__).parents[2]
SCHEMA = sweep_schema({"models": ["mistral-7b-v0.3"], "device": ["h100-80gb"]})
VALIDATOR = Draft202012Validator(SCHEMA)
SPECS = sorted((ROOT / "reports" / "reference").rglob("data/*.yaml"))
GOOD: list[dict[str, Any]] = [
    {"visual": 8},
    {"visual": ["10k", "1e6", 5], "model": "a-hub/id", "pass": "train", "dtype": "bf16"},
    {"name": "a", "max_minutes": 2, "visual": [1], "device": "h100-80gb", "source": "predicted"},
    {"name": "a", "grids": [{"visual": [1], "options": {"attention": "d_attn", "chunk": "8k"}}]},
    {"visual": [1], "options": [{"memory_cap": "h100-80gb"}, {"memory_cap": 10**10}]},
    {"visual": [1], "attention": "d_attn", "chunk": "8k", "checkpoint": True, "fold": True},
    {"visual": [1], "attention": "fastv", "set": ["keep=0.25"], "options": {"zero": 3}},
    {"visual": [1], "protocol": {"min_samples": 3, "precision": None, "emulate": "all"}},
]
BAD: list[Any] = [
    {},
    [1],
    {"visual": []},
    {"visual": [-1]},
    {"visual": ["ten"]},
    {"visual": [1.5]},
    {"vizual": [1]},
    {"visual": [1], "passes": ["trian"]},
    {"visual": [1], "dtype": "bf17"},
    {"visual": [1], "source": "guessed"},
    {"visual": [1], "options": [{"chunck": 4}]},
    {"visual": [1], "options": [{"chunk": 0}]},
    {"visual": [1], "chunck": 4},
    {"visual": [1], "zero": 4},
    {"visual": [1], "num_visual": 4},
    {"visual": [1], "options": {"num_visual": 4}},
    {"visual": [1], "protocol": {"min_sample": 3}},
    {"visual": [1], "max_minutes": 0},
    {"visual": [1], "name": "a b"},
    {"grids": []},
    {"grids": [{"visual": [1]}], "visual": [1]},
]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    grid = SCHEMA["$defs"]["Grid"]["properties"]
    assert grid.keys() == {*Grid.model_fields, *SINGULAR, *CELL_FIELDS, *RENAMED}
    assert all("array" in json.dumps(grid[name]) for name in AXES)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem[:20])
def test_the_sweeps_of_reports_are_right(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("document", GOOD, ids=str)
def test_a_right_one_is_right_to_both(document: dict[str, Any], tmp_path: Path) -> None:
    VALIDATOR.validate(document)
    load_sweep(written(tmp_path, document))


@pytest.mark.parametrize("document", BAD, ids=str)
def test_a_wrong_one_is_wrong_to_both(document: Any, tmp_path: Path) -> None:
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(RequestError):
        load_sweep(written(tmp_path, document))


def written(folder: Path, document: Any) -> Path:
    path = folder / "a.yaml"
    path.write_text(json.dumps(document))
    return path
