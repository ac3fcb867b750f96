"""PaliGemma 1 and 2: published sizes, their processor's tokens, their mask, what files state."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.lvlm.generation import write_weights
from tests.lvlm.published import CONFIG, IMAGES, SERVED
from tests.lvlm.test_oracles import relative
from tests.small import OWN, SHARED, small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.models import FAMILIES, resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.facts import model_flags
from workbench.probe.predicting.predict import predict
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

KERAS = {
    "paligemma-3b-224": 2_923_335_408,
    "paligemma2-3b-224": 3_032_094_960,
    "paligemma2-10b-896": 9_666_833_136,
    "paligemma2-28b-224": 27_650_192_112,
}
"""Parameters as the presets of KerasHub state them, with an embedding of 257,152 rows."""
CAUSAL = "attention: causal; in the released model all tokens of the prefix"


@pytest.mark.parametrize("name", sorted(KERAS))
def test_parameters_are_the_published_ones(name):
    """transformers' files have 64 rows more, for the image token and others that are padding."""
    model = resolve(name)
    visual = tower_of(model).tokens_each
    found = trace(make_cell(model=name, scope="lvlm", num_visual=visual, kernel="eager"))
    assert found.params == KERAS[name] + 64 * model.config.hidden_size


@pytest.fixture(scope="module")
def words():
    """A tokenizer of a few words, as its processor asks for one."""
    known = ["<pad>", "<bos>", "<eos>", "<unk>", "what", "is", "this"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


@pytest.mark.parametrize("edge", [224, 448, 896])
@pytest.mark.parametrize("size", [(19, 7), (640, 480), (300, 1200)])
def test_tokens_are_its_processor_s(edge, size, words):
    images = SiglipImageProcessorPil(size={"height": edge, "width": edge})
    images.image_seq_length = (edge // 14) ** 2
    processor = PaliGemmaProcessor(images, words)
    found = processor(images=Image.new("RGB", size), text="<image> what is this")
    name = f"paligemma2-3b-{edge}"
    shown = tokens(name, resolution=f"{size[0]}x{size[1]}")["num_visual"]
    first = tokens(f"paligemma-3b-{edge}", resolution=f"{size[0]}x{size[1]}")
    assert first["num_visual"] == shown
    assert list(found["input_ids"][0]).count(processor.image_token_id) == shown
    # All of a prompt is its prefix.
    assert not any(found["token_type_ids"][0])
    tower = tower_of(resolve(name))
    assert tower.preprocess([Image.new("RGB", size)], 0).shape == tower.pixels(1, (tower.image,))
    assert sum(map(tower.tokens, tower.of_image(*size))) == shown


def small(family, folder):
    """A small checkpoint with that text model, and transformers' own model."""
    name = small_wrapper("paligemma", folder)
    if family == "gemma":
        config = AutoConfig.from_pretrained(name).to_dict()
        text = FAMILIES[family].config({**SHARED, **OWN[family]}).to_dict()
        AutoConfig.for_model(**{**config, "text_config": text}).save_pretrained(name)
    model = write_weights(name, seed=5)
    # Under sdpa a mask that is causal is left to the layers, which say that they are not.
    model.set_attn_implementation("eager")
    return name, model


def test_greedy_generation_of_the_first_is_transformers_own(tmp_path):
    """Token by token, without the types that open the prefix's mask."""
    name, model = small("gemma", tmp_path)
    assert resolve(name).config.model_type == "gemma"
    fields = {"scope": "lvlm", "kernel": "eager", "dtype": "float64", "num_visual": 16}
    cell = make_cell(model=name, weights=name, num_text=5, **fields)
    pixels, ids = build(cell).inputs
    ids.clamp_(max=90)
    with torch.no_grad():
        for _ in range(3):
            shown = torch.cat([torch.full((1, 16), 96), ids], 1)
            wanted = model(input_ids=shown, pixel_values=pixels).logits
            found = build(cell.replace(num_text=ids.shape[1])).module(pixels, ids)
            assert relative(found, wanted) <= 1e-4
            ids = torch.cat([ids, found[:, -1:].argmax(-1)], 1)


@pytest.mark.parametrize("family", ["gemma2", "gemma"])
def test_masks_are_causal_and_records_say_so(family, tmp_path):
    """As transformers' module without token types; with its processor's it is another model."""
    name, model = small(family, tmp_path)
    cell = make_cell(
        model=name,
        weights=name,
        scope="lvlm",
        kernel="eager",
        dtype="float64",
        num_visual=16,
        num_text=9,  # Beyond the window of 16.
    )
    workload = build(cell)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    inputs = torch.cat([torch.full((1, 16), 96), ids], 1)
    (ours,) = workload.run_forward()
    given = {"input_ids": inputs, "pixel_values": pixels}
    with torch.no_grad():
        causal = model(**given).logits
        released = model(**given, token_type_ids=torch.zeros_like(inputs)).logits
    assert relative(ours, causal) <= 1e-4
    assert relative(ours, released) > 1e-2
    assert any(flag.startswith(CAUSAL) for flag in predict(cell, "cpu").flags)
    plain = predict(make_cell(model="gemma-2-9b", num_visual=64, kernel="eager"), "cpu")
    assert not any(flag.startswith("attention: causal") for flag in plain.flags)


def test_the_flag_is_said_once_whatever_the_text_model_says(tmp_path):
    for text in ({}, {"use_bidirectional_attention": False}):
        name = written(tmp_path, text=text)
        cell = make_cell(model=name, scope="lvlm", num_visual=256, kernel="eager")
        found = [flag for flag in model_flags(cell) if flag.startswith(CAUSAL)]
        assert len(found) == 1


@pytest.mark.parametrize("name", ["paligemma-3b-224", "paligemma2-3b-224"])
def test_kernels_without_a_mask_are_told_that_it_is_causal(name):
    """transformers' layer of PaliGemma says otherwise."""
    model = resolve(name)
    with torch.device("meta"):
        own = model.family.from_transformers(f"{model.family.prefix}DecoderLayer")(model.config, 1)
        ours = model.family.layer(model.config, 1)
    assert own.self_attn.is_causal is False
    assert ours.self_attn.is_causal is True


def written(folder, name="google/paligemma2-3b-pt-224", **changes):
    """A published folder with other fields, those of images and of the tower in their files."""
    files = json.loads(json.dumps(SERVED[name]))
    files[IMAGES] |= changes.pop("images", {})
    files[CONFIG]["vision_config"] |= changes.pop("tower", {})
    files[CONFIG]["text_config"] |= changes.pop("text", {})
    files[CONFIG] |= changes
    for file, fields in files.items():
        (Path(folder) / file).write_text(json.dumps(fields))
    return str(folder)


def test_costs_of_the_first_are_the_counts(tmp_path):
    name, _ = small("gemma", tmp_path)
    fields = {"model": name, "num_visual": 32, "num_text": 5, "dtype": "float32"}
    for system in ("s_attn", "d_attn", "d_attn_full"):
        for pass_ in ("forward", "train", "decode"):
            cell = make_cell(attention=system, scope="lvlm", **fields, **{"pass": pass_})
            found = trace(cell.replace(kernel="eager"))
            assert found.flops == found.model_flops


@pytest.mark.parametrize(
    "outer", [{}, {"hidden_size": 2048, "vocab_size": 257152}, {"hidden_size": 2304}]
)
def test_outer_sizes_that_nothing_reads_decide_nothing(outer, tmp_path):
    name = written(tmp_path, **outer)
    model = resolve(name)
    assert (model.config.vocab_size, model.config.hidden_size) == (257216, 2304)
    assert not model.flags
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    assert sum(p.numel() for p in whole.parameters()) == 3_032_242_416
    assert tower_of(model).tokens_each == 256


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"projection_dim": 2048}, "projection_dim 2048: its text model's hidden_size is 2304"),
        ({"images": {"image_seq_length": 1024}}, "image_seq_length 1024, but the tower"),
        ({"images": {"size": {"height": 448, "width": 448}}}, "image_size 448, but config.json"),
        ({"tower": {"image_size": 9}, "images": {"size": None}}, "smaller than patch_size 14"),
        ({"num_hidden_layers": 18}, "states num_hidden_layers 18, but transformers'"),
        ({"tower": {"model_type": "clip_vision_model"}}, "which scope lvlm does not serve"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, said, tmp_path):
    with pytest.raises(RequestError) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
