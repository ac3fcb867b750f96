"""Folders of model types with a tower of their own, whatever their files say."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small import WRAPPERS, small_lvlm, small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.facts import model_flags
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("wrappers")


OUTER = (
    "vision_feature_layer",
    "vision_feature_select_strategy",
    "downsample_ratio",
    "scale_factor",
    "spatial_merge_size",
    "image_grid_pinpoints",
    "vision_aspect_ratio",
    "projector_hidden_act",
    "multimodal_projector_bias",
    "tie_word_embeddings",
)
INNER = (
    "image_size",
    "patch_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "hidden_act",
    "intermediate_size",
    "model_type",
)
BESIDE = (
    "size",
    "max_image_size",
    "crop_size",
    "min_patches",
    "max_patches",
    "patch_size",
    "image_grid_pinpoints",
    "do_image_splitting",
    "do_resize",
)
FIELDS = [
    (layer, field) for layer, fields in enumerate((OUTER, INNER, BESIDE)) for field in fields
]
VALUES = [
    0,
    -1,
    3,
    7,
    10**9,
    0.5,
    0.3,
    "x",
    "",
    True,
    None,
    [],
    {},
    [56, 57],
    [[56, 56]],
    [[9, 9]],
    {"longest_edge": 0},
    {"longest_edge": "x"},
    {"height": 56},
    "default",
    "full",
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(WRAPPERS)), st.sampled_from(FIELDS), st.sampled_from(VALUES))
def test_whatever_a_folder_says_it_is_one_line_or_a_tower(place, kind, where, value):
    name = Path(small_wrapper(kind, place))
    layer, field = where
    file = name / ("preprocessor_config.json" if layer == 2 else "config.json")
    fields = json.loads(file.read_text()) if file.exists() else {}
    (fields["vision_config"] if layer == 1 else fields)[field] = value
    file.write_text(json.dumps(fields))
    said = f"model {str(name)!r}: "
    try:
        tower = tower_of(resolve(str(name)))
        tower.of_image(120, 120)
        cell = make_cell(
            model=str(name),
            scope="lvlm",
            num_visual=tower.tokens_each,
            kernel="eager",
            dtype="float32",
        )
        build(cell, "meta")
    except RequestError as refusal:
        said = str(refusal)
    finally:
        (name / "preprocessor_config.json").unlink(missing_ok=True)
    assert "\n" not in said
    assert said.startswith(f"model {str(name)!r}: ")


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("internvl", {"downsample_ratio": 0.3}, "downsample_ratio 0.3: 1, 0.5 or 0.25"),
        ("internvl", {"vision_feature_select_strategy": "full"}, "'full': default, for a class"),
        ("idefics3", {"scale_factor": 3}, "scale_factor 3: 4 patches a side are no multiple"),
        ("llava_next", {"image_grid_pinpoints": [[60, 56]]}, "no whole number of tiles of 56"),
        ("llava_onevision", {"vision_aspect_ratio": "pad"}, "'pad': anyres_max_N"),
        ("pixtral", {"vision_feature_select_strategy": "default"}, "'default': full, for Pixtral"),
        ("mistral3", {"projector_hidden_act": "origami"}, "projector_hidden_act 'origami'"),
    ],
)
def test_settings_that_make_no_sense_are_named(kind, fields, message, tmp_path):
    file = Path(small_wrapper(kind, tmp_path)) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(RequestError, match=message):
        tower_of(resolve(str(file.parent)))


@pytest.mark.parametrize(
    ("make", "kind", "field", "value", "message"),
    [
        (small_wrapper, "mistral3", "head_dim", 32, "its vision tower cannot run: "),
        (small_lvlm, "gemma3", "num_channels", 1, "its vision tower cannot run: "),
        (small_lvlm, "qwen2_5_vl", "window_size", 1, "vision_config.window_size 1: a window has"),
    ],
)
def test_a_tower_whose_sizes_do_not_fit_is_one_line(make, kind, field, value, message, tmp_path):
    """transformers builds such towers, and fails where it runs them."""
    name = make(kind, tmp_path)
    path = Path(name, "config.json")
    fields = json.loads(path.read_text())
    fields["vision_config"][field] = value
    path.write_text(json.dumps(fields))
    cell = make_cell(model=name, scope="lvlm", num_visual=4, num_text=4, kernel="eager")
    with pytest.raises(RequestError, match=f"^model {name!r}: {message}.+"):
        trace(cell.replace(num_visual=tower_of(resolve(name)).tokens_each))


def with_tower(kind, folder, change):
    """A small folder whose vision_config is changed."""
    name = (small_wrapper if kind in WRAPPERS else small_lvlm)(kind, folder)
    path = Path(name, "config.json")
    fields = json.loads(path.read_text())
    change(fields["vision_config"])
    path.write_text(json.dumps(fields))
    return name


@pytest.mark.parametrize("kind", ["llava", "llava_next", "llava_onevision", "mistral3"])
def test_a_tower_of_no_type_is_transformers_default_and_so_are_its_images(kind, tmp_path):
    stated = tower_of(resolve(with_tower(kind, tmp_path / "a", lambda tower: None)))
    left = tower_of(
        resolve(with_tower(kind, tmp_path / "b", lambda tower: tower.pop("model_type")))
    )
    assert left.front == stated.front
    assert left.front.origins
    assert left.tokens_each == stated.tokens_each


@pytest.mark.parametrize("kind", ["idefics3", "smolvlm", "llava"])
def test_images_are_not_cut_to_a_size_that_the_tower_only_has_elsewhere(kind, tmp_path):
    """transformers' default of the tower is another than the front end's published one."""
    name = with_tower(kind, tmp_path, lambda tower: tower.pop("image_size"))
    with pytest.raises(RequestError, match=r"states no vision_config\.image_size, of which"):
        _ = tower_of(resolve(name)).front


def test_the_width_of_qwen_s_tokens_is_the_decoder_s(tmp_path):
    name = with_tower("qwen2_5_vl", tmp_path, lambda tower: tower.pop("out_hidden_size"))
    with pytest.raises(RequestError, match=r"out_hidden_size 3584: the decoder's hidden_size"):
        tower_of(resolve(name))


def test_sizes_of_a_tower_that_the_file_leaves_are_told(tmp_path):
    name = with_tower("gemma3", tmp_path, lambda tower: tower.pop("intermediate_size"))
    flags = model_flags(make_cell(model=name, scope="lvlm", num_visual=4))
    (flag,) = (flag for flag in flags if "vision_config's" in flag)
    assert "intermediate_size 3,072: the default of transformers' SiglipVisionConfig" in flag
    cell = make_cell(model=name, scope="decoder", num_visual=4)
    assert not any("vision_config's" in flag for flag in model_flags(cell))
