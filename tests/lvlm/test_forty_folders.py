"""Folders as the hub has them: each is served exactly at scope lvlm, or is one line."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.lvlm.published import REFUSED, SERVED, TOTALS, TOWERLESS
from workbench import cli
from workbench.lvlm.configs import silent
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import own_tower, tower_of
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError


def write(folder, files):
    for file, fields in files.items():
        (folder / file).write_text(json.dumps(fields))
    return str(folder)


def test_there_are_forty():
    assert len(SERVED) >= 40
    assert set(TOTALS) <= set(SERVED)


@pytest.mark.parametrize("name", sorted(SERVED))
def test_parameters_at_scope_lvlm_are_transformers_own(name, tmp_path):
    """Of the whole and of its decoder; and scope lvlm shows as many tokens as the front end."""
    model = resolve(write(tmp_path, SERVED[name]))
    with torch.device("meta"), silent():
        whole = AutoModelForImageTextToText.from_config(model.whole)
    tower = tower_of(model)
    assert own_tower(model) != "siglip"
    cell = make_cell(
        model=model.name, scope="lvlm", num_visual=tower.tokens_each, num_text=8, kernel="eager"
    )
    found = trace(cell)
    total = sum(p.numel() for p in whole.parameters())
    assert found.params == total == TOTALS.get(name, total)
    decoder = [*whole.get_decoder().parameters(), whole.get_output_embeddings().weight]
    count = sum(p.numel() for p in {id(p): p for p in decoder}.values())
    assert found.params_by_component["decoder"] == count
    assert found.flops == found.model_flops
    for width, height in ((640, 480), (1280, 720), (300, 900)):
        grids = tower.of_image(width, height)
        shown = tokens(model.name, resolution=f"{width}x{height}")["num_visual"]
        assert sum(map(tower.tokens, grids)) == shown


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_no_class_reads_is_one_line(name, tmp_path):
    folder = write(tmp_path, REFUSED[name])
    kind = REFUSED[name]["config.json"]["model_type"]
    with pytest.raises(RequestError) as refusal:
        resolve(folder)
    said = str(refusal.value)
    assert said.startswith(f"model {folder!r}: model_type {kind!r} ")
    assert "\n" not in said


@pytest.mark.parametrize("name", sorted(TOWERLESS))
@pytest.mark.parametrize("bare", [True, False])
def test_no_other_tower_takes_a_place(name, bare, tmp_path):
    """Also where the file leaves the tower to transformers' defaults."""
    fields = TOWERLESS[name]["config.json"]
    kind = fields["model_type"]
    files = {"config.json": {"model_type": kind}} if bare else TOWERLESS[name]
    model = resolve(write(tmp_path, files))
    with pytest.raises(RequestError) as refusal:
        tower_of(model)
    said = str(refusal.value)
    assert f"under model_type {kind!r}, which scope lvlm does not serve" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "code"), [("mistralai/Ministral-3-3B-Instruct-2512", 0), ("openbmb/MiniCPM-V-2_6", 2)]
)
def test_the_program_says_so(name, code, tmp_path, capsys):
    folder = write(tmp_path, (SERVED | REFUSED)[name])
    ended = 0
    try:
        cli.main(["predict", "--model", folder, "--scope", "lvlm", "--visual", "1024", "--json"])
    except SystemExit as leaving:
        ended = leaving.code or 0
    assert ended == code
    out, err = capsys.readouterr()
    if code:
        assert err.count("\n") == 1
    else:
        assert json.loads(out)["metrics"]["params"] == 3_849_090_048
