"""HunyuanOCR: positions of its axes, what only the layer as it is expresses, what it costs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers.models.hunyuan_vl.modeling_hunyuan_vl import HunYuanVLModel

from tests.lvlm.generation import write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import small_wrapper
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import Grid, tower_of
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported

DECOMPOSED = tuple(name for name in sorted(SYSTEMS) if name.startswith("d_attn"))


def cell_of(name, **fields):
    own = {"scope": "decoder", "kernel": "eager", "dtype": "float32", "num_visual": 33}
    return make_cell(model=name, **{**own, "num_text": 9, **fields})


def folder_of(folder, **fields):
    """A small folder with these fields of its text model."""
    file = Path(small_wrapper("hunyuan_vl", folder), "config.json")
    stated = json.loads(file.read_text())
    stated["text_config"] |= fields
    file.write_text(json.dumps(stated))
    return str(file.parent)


@pytest.mark.parametrize("section", [[2, 2, 2, 2], [4, 2, 2]])
@pytest.mark.parametrize(
    ("pattern", "grids"),
    [
        ("V,T", [Grid(1, 8, 6)]),
        ("T,V,T", [Grid(1, 4, 12)]),
        ("T,V,T,V,T", [Grid(1, 4, 6), Grid(1, 6, 2)]),
    ],
)
def test_positions_are_transformers_own(section, pattern, grids, tmp_path):
    rope = {"rope_type": "dynamic", "factor": 1.0, "alpha": 10.0, "rope_theta": 1e4}
    name = folder_of(tmp_path, rope_parameters={**rope, "mrope_section": section})
    tower = tower_of(resolve(name))
    counts = [tower.tokens(grid) for grid in grids]
    for count in counts:
        pattern = pattern.replace("V", f"W{count}", 1)
    layout = Layout(sum(counts), 11, pattern.replace("W", "V"))
    kinds = torch.zeros(1, layout.length, dtype=torch.int64)
    kinds[0, layout.positions(visual=True)] = 1
    theirs = SimpleNamespace(config=resolve(name).whole)
    theirs.get_vision_position_ids = HunYuanVLModel.get_vision_position_ids.__get__(theirs)
    sizes = torch.tensor([grid[:3] for grid in grids])
    wanted, _ = HunYuanVLModel.get_rope_index(theirs, kinds, kinds, sizes)
    found = tower.positions(layout, tuple(grids))
    assert torch.equal(found, wanted[:, 0])


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"s_attn", *DECOMPOSED}))
def test_other_systems_are_refused_by_name(system):
    wanted = f"^{system}: hunyuan_vl_text norms queries and keys after RoPE, which {system} has no"
    with pytest.raises(Unsupported, match=wanted):
        build(cell_of("hunyuan-ocr-1b", attention=system), "meta")


def test_a_decode_step_is_the_last_row_of_a_prefill(tmp_path):
    name = small_wrapper("hunyuan_vl", tmp_path)
    model = write_weights(name)
    ids = torch.randint(90, (1, 8))
    cell = cell_of(name, weights=name, num_visual=0, dtype="float64")
    whole = build(cell.replace(num_text=8))
    with torch.no_grad():
        rows = whole.module(whole.inputs[0], ids)
        assert relative(rows, model(input_ids=ids).logits) <= 1e-5
    first = ids.shape[1] - 1
    prefill = build(cell.replace(num_text=first, cache=True))
    prefill.module(prefill.inputs[0], ids[:, :first])
    step = build(cell.replace(num_text=first, pass_="decode"))
    for layer, cache in zip(step.module.layers, prefill.context.caches, strict=True):
        for name_, tensor in zip(("keys", "values"), cache.tensors, strict=True):
            getattr(layer, name_).copy_(tensor)
    with torch.no_grad():
        assert relative(step.module(None, ids[:, first:]), rows[:, -1:]) <= 1e-9


@pytest.mark.parametrize("section", [None, [8], [4, 4]])
def test_too_few_axes_are_one_line(section, tmp_path):
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": section}
    name = folder_of(tmp_path, rope_parameters=rope)
    with pytest.raises(
        RequestError, match=r"mrope_section .*: sections of half a head"
    ) as refusal:
        resolve(name)
    assert "\n" not in str(refusal.value)


def test_the_row_that_feeds_nothing_is_held(tmp_path):
    name = small_wrapper("hunyuan_vl", tmp_path)
    cell = cell_of(
        name, scope="lvlm", num_visual=tower_of(resolve(name)).tokens_each, **{"pass": "train"}
    )
    workload = build(cell, "meta")
    held = [n for n, p in workload.module.named_parameters() if not p.requires_grad]
    assert held == ["adapter.merger.image_sep"]


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train"},
        {"pass": "train", "checkpoint": True, "lora": "r=2"},
        {"cache": True},
        {"pass": "decode"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = folder_of(tmp_path, num_hidden_layers=8)
    cell = cell_of(name, num_visual=100, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    if "checkpoint" not in fields:
        assert composed.flops == composed.model_flops
    assert_measured(cell, 0.02)
