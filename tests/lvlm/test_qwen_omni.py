"""Qwen2.5-Omni and Qwen3-Omni: their thinkers against transformers' own, without what hears.

The tower of Qwen2.5-Omni is among those of test_towers.py.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerModel
from transformers.models.qwen2_5_omni.processing_qwen2_5_omni import Qwen2_5OmniProcessor
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeThinkerModel
from transformers.models.qwen3_omni_moe.processing_qwen3_omni_moe import Qwen3OmniMoeProcessor

from tests.lvlm.generation import GREEDY, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import small_lvlm
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import resolve
from workbench.lvlm.models.qwen2_5_omni import NOTE
from workbench.lvlm.towers import Grid, tower_of
from workbench.lvlm.weights.quantized import quantization
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.visual.tokens import front_end_of, tokens
from workbench.vocabulary.cell import make_cell

KINDS = {"qwen2_5_omni": Qwen2_5OmniThinkerModel, "qwen3_omni_moe": Qwen3OmniMoeThinkerModel}
PROCESSORS = {"qwen2_5_omni": Qwen2_5OmniProcessor, "qwen3_omni_moe": Qwen3OmniMoeProcessor}
START = 94
"""The token before an image."""


def cell_of(name, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "dtype": "float32", "num_visual": 16}
    return make_cell(model=name, **{**own, "num_text": 9, **fields})


SIZES = {
    "qwen2.5-omni-7b": (8_931_813_888, 639_647_232),
    "qwen2.5-omni-3b": (4_703_464_448, 637_676_544),
    "qwen3-omni-30b-a3b": (31_719_205_488, 647_927_168),
}
"""Parameters of transformers' own thinker, and of the audio tower in it."""


@pytest.mark.parametrize("name", sorted(SIZES))
def test_parameters_are_transformers_own_less_the_audio_tower(name):
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    total = sum(p.numel() for p in whole.parameters())
    audio = sum(p.numel() for p in whole.model.audio_tower.parameters())
    assert (total, audio) == SIZES[name]
    tower = tower_of(model)
    found = trace(cell_of(name, dtype="bfloat16", num_visual=tower.tokens_each))
    assert found.params == total - audio
    assert found.flops == found.model_flops
    decoder = sum(p.numel() for p in whole.model.language_model.parameters())
    assert found.params_by_component["decoder"] == decoder + whole.lm_head.weight.numel()
    assert f"the audio tower beside it is left out, its {audio:,} parameters" in tower.flags[0]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_greedy_generation_is_transformers_own(kind, tmp_path):
    """From pixels between text; a token stands before an image, without which none is seen."""
    name = small_lvlm(kind, tmp_path)
    model = write_weights(name, dtype=torch.float32, seed=5)
    first, ids = torch.tensor([[1, START]]), torch.tensor([[7, 3, 2]])
    for step in range(3):
        layout = f"T2,V16,T{3 + step}"
        cell = cell_of(name, weights=name, layout=layout, num_text=5 + step)
        workload = build(cell)
        if not step:
            pixels = workload.inputs[0]
            asked = torch.cat([first, torch.full((1, 16), 96), ids], 1)
            given = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 8, 8]])}
            given["attention_mask"] = torch.ones_like(asked)  # Positions go by it.
            with torch.no_grad():
                expected = model(input_ids=asked, **given).logits
                wanted = model.generate(input_ids=asked, **given, max_new_tokens=3, **GREEDY)
        with torch.no_grad():
            logits = workload.module(pixels, torch.cat([first, ids], 1))
        if not step:
            assert relative(logits, expected) <= 1e-4
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(ids[:, 3:], wanted[:, -3:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("video", [False, True])
def test_positions_are_transformers_own(kind, video, tmp_path):
    """Of two images, and of a video of 3 steps 0.8 s apart, which what follows waits for."""
    tower = tower_of(resolve(small_lvlm(kind, tmp_path)))
    grids = (Grid(3, 4, 8, 0.8),) if video else (Grid(1, 4, 8), Grid(1, 12, 4))
    visual = [tower.tokens(grid) for grid in grids]
    pattern = "".join(f"T3,V{count}," for count in visual) + "T4"
    layout = Layout(sum(visual), 3 * len(visual) + 4, pattern)
    ids = torch.full((1, layout.length), 95 if video else 96)
    ids[0, layout.positions(visual=False)] = 1
    for segment in layout.segments:
        if segment.visual:
            ids[0, segment.start - 1] = START
    config = tower.model.whole
    theirs = SimpleNamespace(config=config, spatial_merge_size=2)
    model = KINDS[kind]
    theirs.get_llm_pos_ids_for_vision = model.get_llm_pos_ids_for_vision.__get__(theirs)
    sizes = torch.tensor([grid[:3] for grid in grids])
    which = "video_grid_thw" if video else "image_grid_thw"
    mask = torch.ones_like(ids)
    places, _ = model.get_rope_index(
        theirs, ids, attention_mask=mask, second_per_grids=torch.tensor([0.8]), **{which: sizes}
    )
    assert torch.equal(tower.positions(layout, grids), places[:, 0].long())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_thinker_is_found_in_the_whole_file(kind, tmp_path):
    """What speaks stands beside it, and is left out, which a flag says."""
    name = small_lvlm(kind, tmp_path)
    file = Path(name, "config.json")
    thinker = json.loads(file.read_text())
    alone = trace(cell_of(name))
    whole = {"model_type": kind, "thinker_config": thinker, "talker_config": {"hidden_size": 16}}
    file.write_text(json.dumps(whole))
    assert trace(cell_of(name)).params == alone.params
    flags = predict(cell_of(name), "cpu").flags
    assert NOTE in flags
    assert any(flag.startswith("tower: the audio tower beside it") for flag in flags)
    assert front_end_of(name).name == tower_of(resolve(name)).front_end


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_the_whole_file_states_of_weights_holds_for_the_thinker(kind, tmp_path):
    """Published ones say nothing of the head, which is none of the embedding's, and Qwen3's state
    a shared expert of 0; of quantised ones the scheme stands outside of the thinker."""
    name = small_lvlm(kind, tmp_path)
    file = Path(name, "config.json")
    thinker = json.loads(file.read_text())
    thinker["text_config"].pop("tie_word_embeddings", None)
    thinker.pop("tie_word_embeddings", None)
    if kind == "qwen3_omni_moe":
        thinker["text_config"]["shared_expert_intermediate_size"] = 0
    scheme = {"quant_method": "awq", "bits": 4, "group_size": 128}
    whole = {"model_type": kind, "thinker_config": thinker, "quantization_config": scheme}
    file.write_text(json.dumps(whole))
    model = resolve(name)
    with torch.device("meta"):
        theirs = AutoModelForImageTextToText.from_config(model.whole)
    audio = sum(p.numel() for p in theirs.model.audio_tower.parameters())
    assert trace(cell_of(name)).params == sum(p.numel() for p in theirs.parameters()) - audio
    assert quantization(model) == scheme
    assert not any(flag.startswith("tie_word_embeddings") for flag in model.flags)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_pixels_of_video_are_the_processor_s_whatever_a_file_says(kind, tmp_path):
    name = small_lvlm(kind, tmp_path)
    Path(name, "preprocessor_config.json").write_text('{"max_pixels": 4096, "min_pixels": 1024}')
    size = PROCESSORS[kind].videos_kwargs["size"]
    found = front_end_of(name)
    assert (found.min_pixels, found.max_pixels) == (1024, 4096)
    assert found.video_min_pixels == size["shortest_edge"]
    assert found.video_max_pixels == size["longest_edge"]
    assert found.origins["video_max_pixels"].startswith(PROCESSORS[kind].__name__)


def test_tokens_of_the_catalogue():
    assert tokens("qwen2.5-omni-7b", resolution="280x560")["num_visual"] == 200
    assert tokens("qwen3-omni-30b-a3b", resolution="320x640")["num_visual"] == 200
    assert tokens("qwen3-omni-30b-a3b", resolution="640x640", frames=4)["num_visual"] == 800


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(
    "fields",
    [{"pass": "train"}, {"pass": "train", "lora": "r=2"}, {"cache": True}, {"pass": "decode"}],
)
def test_predicted_is_measured(kind, fields, tmp_path):
    name = small_lvlm(kind, tmp_path, num_hidden_layers=6)
    cell = cell_of(name, num_visual=256, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert_measured(cell, 0.05)
