"""Broken files of the newest families: field, value and what would be right, in one line."""

import json
from copy import deepcopy

import pytest

from tests.lvlm.published import CONFIG, SERVED
from tests.lvlm.test_forty_folders import write
from workbench.lvlm.configs import load_stated
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import own_tower, tower_of
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

ARIA, ERNIE = "rhymes-ai/Aria", "baidu/ERNIE-4.5-VL-28B-A3B-PT"
GRANITE, HUNYUAN = "ibm-granite/granite-vision-3.3-2b", "tencent/HunyuanOCR"
PADDLE = "PaddlePaddle/PaddleOCR-VL"


def broken(name, path, value):
    """The files of a published folder with another value at a dotted path of its config.json."""
    files = deepcopy(SERVED[name])
    *sections, field = path.split(".")
    fields = files[CONFIG]
    for section in sections:
        fields = fields[section]
    fields[field] = value
    return files


@pytest.mark.parametrize(
    ("name", "path", "value", "right"),
    [
        (PADDLE, "vision_config", 5, "vision_config 5: a section in braces"),
        (PADDLE, "rope_scaling", "x", "rope_scaling 'x': a section in braces"),
        (PADDLE, "use_bias", 3, "use_bias 3: true or false"),
        (PADDLE, "image_token_id", "12", "image_token_id '12': a whole number"),
        (PADDLE, "vision_config.hidden_act", 3, "an activation of transformers"),
        (ARIA, "text_config.use_cache", "no", "text_config.use_cache 'no': true or false"),
        (ARIA, "text_config.initializer_range", "x", "initializer_range 'x': a number above 0"),
        (ARIA, "text_config.moe_topk", 65, "moe_topk 65: at most moe_num_experts 64"),
        (ERNIE, "text_config.moe_k", 70, "moe_k 70: at most moe_num_experts 64"),
        (ERNIE, "text_config.hidden_act", "swoosh", "hidden_act 'swoosh': an activation"),
        (ERNIE, "vision_config.hidden_act", "swoosh", "vision_config.hidden_act 'swoosh'"),
        (ERNIE, "text_config.rope_parameters.mrope_section", 7, "half a head in sum"),
        (
            ERNIE,
            "text_config.rope_parameters.mrope_section",
            [22, 22],
            r"mrope_section \[22, 22\]: of a head of 128 .* have 64 frequencies in sum",
        ),
        (GRANITE, "text_config.attention_dropout", -1, "a number from 0 to below 1"),
        (GRANITE, "text_config.eos_token_id", "x", "eos_token_id 'x': a whole number or a list"),
        (HUNYUAN, "attention_head_dim", "12", "attention_head_dim '12': a whole number from 1"),
        (HUNYUAN, "org_vocab_size", -1, "org_vocab_size -1: a whole number from 1"),
        (HUNYUAN, "rope_scaling.xdrope_section", {}, "half a head in sum"),
        (HUNYUAN, "vision_config.max_image_size", 0, "max_image_size 0: a whole number from 1"),
    ],
)
def test_a_broken_field_is_one_line(name, path, value, right, tmp_path):
    folder = write(tmp_path, broken(name, path, value))
    with pytest.raises(RequestError, match=right) as said:
        resolve(folder)
    assert "\n" not in str(said.value)
    assert "Error" not in str(said.value)
    assert path.rpartition(".")[2] in str(said.value)


@pytest.mark.parametrize("value", [float("inf"), 10**400])
def test_a_number_beyond_floating_point_is_one_line(value):
    stated = broken(ARIA, "text_config.rope_theta", value)[CONFIG]
    with pytest.raises(RequestError, match=r"rope_theta \w+: a number above 0"):
        load_stated(ARIA, stated)


@pytest.mark.parametrize("name", [ARIA, ERNIE, GRANITE, PADDLE])
def test_without_a_section_of_the_tower_it_is_asked_for(name, tmp_path):
    files = deepcopy(SERVED[name])
    del files[CONFIG]["vision_config"]
    folder, kind = write(tmp_path, files), files[CONFIG]["model_type"]
    wanted = f"no vision_config, the section in which model_type '{kind}' states its vision tower"
    with pytest.raises(RequestError, match=wanted):
        own_tower(resolve(folder))
    with pytest.raises(RequestError, match=wanted):
        tokens(folder, resolution="640x480")


def test_another_tower_than_the_type_has_is_told_which_it_has(tmp_path):
    fields = {"model_type": "clip_vision_model"}
    folder = write(tmp_path, broken(GRANITE, "vision_config", fields))
    config = json.loads((tmp_path / CONFIG).read_text()) | {"model_type": "aria"}
    config |= {"text_config": SERVED[ARIA][CONFIG]["text_config"]}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(RequestError) as said:
        tower_of(resolve(folder))
    assert "'clip_vision_model' under model_type 'aria'" in str(said.value)
    assert "it has idefics3_vision there" in str(said.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("attention_multiplier", 1), ("initializer_range", 1), ("embedding_multiplier", 10)],
)
def test_a_whole_number_is_the_fraction_that_a_class_asks_for(field, value):
    name = "tiny-hcx-model/tiny-random-HyperCLOVAXVisionV2ForConditionalGeneration"
    stated = broken(name, f"text_config.{field}", value)[CONFIG]
    assert getattr(load_stated(name, stated)[1], field) == value


@pytest.mark.parametrize(("path", "value"), [("vision_config", {}), ("mm_tokens_per_image", 60)])
def test_patches_that_make_no_such_tokens_are_one_line(path, value, tmp_path):
    folder = write(tmp_path, broken("google/shieldgemma-2-4b-it", path, value))
    with pytest.raises(RequestError, match=r"mm_tokens_per_image \d+: a square whose side"):
        tower_of(resolve(folder))
