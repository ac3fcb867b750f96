"""Gemma 3n: transformers' own results, parameters and caches; costs; what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Gemma3nForCausalLM
from transformers.models.gemma3n.processing_gemma3n import Gemma3nProcessor

from tests.lvlm.generation import step_after
from tests.lvlm.test_oracles import relative
from tests.small import small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.per_layer import GIVES, TAKES
from workbench.lvlm.build import build
from workbench.lvlm.configs import packages
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.places import kinds_of, places_of
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.operators import KNOWN
from workbench.probe.counting.stretches import plan_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.emulation import emulated_peak, trace_emulation
from workbench.probe.predicting.predict import predict
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

LAYERS = {
    "num_hidden_layers": 14,
    "num_kv_shared_layers": 6,
    "layer_types": ["sliding_attention", "full_attention"]
    + ["sliding_attention"] * 5
    + ["full_attention"]
    + ["sliding_attention"] * 5
    + ["full_attention"],
    "activation_sparsity_pattern": [0.9] * 2 + [0.0] * 12,
}
"""Where layers repeat: those with keys of their own, and those that take others'."""
FEW = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "activation_sparsity_pattern": [0.9] + [0.0] * 3,
}
"""One layer of each kind."""


@pytest.fixture
def without_timm(monkeypatch):
    """As where the extra is not installed."""
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    packages.obstacle.cache_clear()
    yield
    packages.obstacle.cache_clear()


def cell_of(name, **fields):
    own = {"scope": "decoder", "kernel": "eager", "dtype": "float64", "num_visual": 0}
    return make_cell(**{"model": name, "num_text": 6, **own, **fields})


def checkpoint(folder):
    """A small checkpoint and transformers' own model, every weight of it random."""
    name = small_model("gemma3n", folder)
    torch.manual_seed(3)
    model = Gemma3nForCausalLM(resolve(name).config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(name)
    return name, model.eval()


def test_greedy_generation_of_its_decoder_is_transformers_own(tmp_path):
    """Of text alone, past the window, with ids that have no embedding for each layer."""
    name, model = checkpoint(tmp_path)
    ids = torch.tensor([[5, 93, 9, 96, 3, 40] * 3])
    logits = build(cell_of(name, weights=name, num_text=18)).module(None, ids)
    with torch.no_grad():
        assert relative(logits, model(input_ids=ids).logits) <= 1e-6
        wanted = model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None)
        for step in range(3):
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
            logits = build(cell_of(name, weights=name, num_text=19 + step)).module(None, ids)
    assert torch.equal(ids, wanted)


def test_weights_of_a_whole_checkpoint_are_those_of_its_text_model(without_timm, tmp_path):
    """Whose class asks for timm: without it towers are left where they are."""
    name, model = checkpoint(tmp_path)
    stated = {"model_type": "gemma3n", "vision_config": {"model_type": "gemma3n_vision"}}
    stated["text_config"] = json.loads((Path(name) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stated))
    named = model.model.state_dict().items()
    tensors = {f"model.language_model.{key}": value.clone() for key, value in named}
    tensors["model.vision_tower.timm_model.conv_stem.conv.weight"] = torch.zeros(2)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    workload, ids = build(cell_of(str(tmp_path), weights=str(tmp_path))), torch.arange(6)[None]
    with torch.no_grad():
        assert relative(workload.module(None, ids), model(input_ids=ids).logits) <= 1e-6
    assert not workload.context.flags


def test_a_decode_step_is_the_last_row_of_a_prefill(tmp_path):
    """Over the caches that a prefill keeps; layers that take keys and values have none."""
    name, _ = checkpoint(tmp_path)
    cell = cell_of(name, weights=name, num_text=19)
    ids = torch.randint(97, (1, 19))
    whole = build(cell).module(None, ids)
    logits, prefill, step = step_after(cell, ids)
    assert relative(logits, whole[:, -1:]) <= 1e-6
    item, elements = 8, 2 * 2 * 8
    assert step.kv_cache_bytes == item * elements * (4 * 15 + 18)
    assert prefill.kv_cache_bytes == step.kv_cache_bytes


def test_visual_rows_have_the_embedding_of_id_0_for_each_layer(tmp_path):
    """As in Gemma3nModel, whose image tokens have none of their own."""
    name, model = checkpoint(tmp_path)
    cell = cell_of(name, weights=name, num_visual=5, layout="T,V,T")
    workload = build(cell)
    visual, ids = workload.inputs
    text = model.model.embed_tokens(ids)
    every = torch.cat([ids[:, :3], torch.full((1, 5), 96), ids[:, 3:]], 1)
    with torch.no_grad():
        wanted = model.model(
            inputs_embeds=torch.cat([text[:, :3], visual, text[:, 3:]], 1),
            per_layer_inputs=model.model.get_per_layer_inputs(every),
        ).last_hidden_state
        wanted = torch.tanh(model.lm_head(wanted) / 3.0) * 3.0
    assert relative(workload.run_forward()[0], wanted) <= 1e-6


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_closed_form_is_the_count_and_layers_repeat(pass_, tmp_path):
    name = small_model("gemma3n", tmp_path, **LAYERS)
    cell = cell_of(name, num_visual=30, dtype="float32", **{"pass": pass_})
    composed, whole = trace(cell), trace(cell, compose=False)
    assert [(s.unit, s.count) for s in plan_of(cell)] == [(1, 4), (1, 5)]
    assert composed.flops == whole.flops == whole.model_flops
    assert composed.flops_causal == whole.flops_causal == whole.model_flops_causal
    assert composed.params == whole.params == composed.active_params
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]


@pytest.mark.parametrize("fields", [{"checkpoint": True, "offload": True}, {"lora": "r=2"}])
def test_what_training_adds_is_composed_as_it_is(fields, tmp_path):
    name = small_model("gemma3n", tmp_path, **LAYERS)
    cell = cell_of(name, num_visual=30, dtype="float32", **{"pass": "train", **fields})
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.flops == whole.flops
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert composed.offload_bytes == whole.offload_bytes


def test_only_the_streams_wait_on_the_host(tmp_path):
    """What every layer reads, or several share, is needed on the device all the same."""
    cell = cell_of(small_model("gemma3n", tmp_path), num_visual=30, dtype="float32")
    cell = cell.replace(pass_="train", checkpoint=True, offload=True)
    streams = 4 * 4 * 36 * 32
    assert trace(cell).offload_bytes == 8 * streams


@pytest.mark.parametrize("frozen", ["tower,adapter", "decoder", None])
def test_behind_the_tower_that_is_asked_for_by_name(frozen, tmp_path):
    """Frozen layers still multiply streams with coefficients in a backward."""
    name = small_model("gemma3n", tmp_path)
    fields = {"scope": "lvlm", "tower": "siglip", "num_visual": 729, "dtype": "float32"}
    traced = trace(cell_of(name, frozen=frozen, **fields, **{"pass": "train"}))
    assert traced.flops == traced.model_flops


def test_layers_that_differ_in_what_they_compute_are_told_apart(tmp_path):
    """By the gates that are cut, and by what they do with keys, not by modules alone."""
    cell = cell_of(small_model("gemma3n", tmp_path))
    roles = [place.role for place in places_of(cell)]
    assert roles == ["", "", GIVES, "", GIVES, TAKES, TAKES, TAKES]
    local = [kinds_of(cell)[i] for i in (0, 1, 3, 4, 6)]
    assert local[0] == local[1]
    assert len(set(local)) == 4


@pytest.mark.parametrize("pass_", ["train", "decode"])
def test_its_operators_were_gone_through(pass_, tmp_path):
    name = small_model("gemma3n", tmp_path)
    traced = trace(cell_of(name, num_visual=40, **{"pass": pass_}), CARD, compose=False)
    assert {op.name for op in traced.operators} <= KNOWN


@pytest.mark.parametrize("layer", [None, 0, 2, 4, 7])
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_a_layer_alone_is_given_what_it_takes(layer, pass_, tmp_path):
    name = small_model("gemma3n", tmp_path)
    cell = cell_of(name, scope="layer", layer=layer, num_visual=40, **{"pass": pass_})
    workload, counted = build(cell), trace(cell)
    workload.step()
    assert counted.flops == counted.model_flops
    role = places_of(cell)[2 if layer is None else layer].role
    assert len(workload.inputs) == (4 if role == TAKES else 2)
    assert bool(workload.kv_cache_bytes) == (role != TAKES)
    if pass_ == "train":
        assert all(x.grad is not None for x in workload.inputs)


@pytest.mark.parametrize(
    "fields",
    [
        {"cache": True, "kernel": "sdpa", "batch": 2},
        {"pass": "decode", "cache_dtype": "int8"},
        {"pass": "train", "checkpoint": True, "offload": True, "accumulate": 2},
        {"pass": "train", "lora": "r=2,alpha=4,targets=all-linear"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = small_model("gemma3n", tmp_path, **FEW)
    cell = cell_of(name, **{"num_visual": 40, "dtype": "float32", **fields})
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    predicted = predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    for metric in ("flops", "flops_causal", "params", "kv_cache_bytes"):
        assert measured.metrics.get(metric) == predicted.metrics.get(metric)
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", sorted(n for n in MODELS if n.startswith("gemma-3n")))
def test_parameters_of_the_catalogue_are_transformers_own(name):
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(model.config)
    traced = trace(cell_of(name, kernel="sdpa", dtype="bfloat16", num_visual=256))
    assert traced.params == sum(p.numel() for p in whole.parameters())
    assert traced.flops == traced.model_flops


def test_a_cache_holds_no_more_than_what_is_not_shared():
    """Of 30 layers the first 20: a local one holds its window, a global one all tokens."""
    cell = cell_of("gemma-3n-e2b", dtype="bfloat16", kernel="sdpa", num_visual=8192)
    record = predict(cell.replace(pass_="decode"), "h100-80gb")
    each = 2 * 2 * 256
    assert record.metrics["kv_cache_bytes"] == 2 * each * (16 * 511 + 4 * (8192 + 6))


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"s_attn"}))
def test_other_systems_are_refused_by_name(system):
    cell = make_cell(model="gemma-3n-e2b", attention=system, scope="decoder", num_visual=64)
    with pytest.raises(Unsupported, match=f"^{system}: gemma3n_text mixes several hidden states"):
        build(cell, "meta")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ulysses": 2, "world_size": 2}, "ulysses 2: layers of .* hand on embeddings"),
        (
            {"ring": 2, "world_size": 2, "kernel": "flash"},
            "ring 2: layers of .* hand on",
        ),
        (
            {"weights_dtype": "int8", "lora": "r=2", "dtype": "float32"},
            "weights_dtype int8: while .* trains, AltUp clips its matrices",
        ),
    ],
)
def test_what_cannot_be_is_one_line(fields, message, tmp_path):
    name = small_model("gemma3n", tmp_path)
    with pytest.raises(RequestError, match=message) as refusal:
        build(cell_of(name, **{"pass": "train", **fields}))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size_per_layer_input": 0}, "hidden_size_per_layer_input 0: a whole number from"),
        ({"num_kv_shared_layers": 8}, "num_kv_shared_layers 8: layers that share keys and values"),
        ({"num_kv_shared_layers": 6}, "layer types producing a cache is different"),
        ({"laurel_rank": 0}, "laurel_rank 0: a whole number from 1"),
        ({"intermediate_size": [48] * 7}, "must have an explicit intermediate size"),
    ],
)
def test_a_config_that_cannot_be_is_one_line(fields, message, tmp_path):
    file = Path(small_model("gemma3n", tmp_path)) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(RequestError, match=message) as refusal:
        resolve(str(file.parent))
    assert "\n" not in str(refusal.value)


def test_its_tower_needs_a_package(without_timm):
    """Its tokens are counted without it, and other towers take its place where asked for."""
    tower = tower_of(resolve("gemma-3n-e4b"))
    assert tower.tokens_each == 256
    cell = make_cell(model="gemma-3n-e4b", scope="lvlm", num_visual=256)
    wanted = (
        "model 'gemma-3n-e4b': its tower is one of the package timm, which is not installed: pip "
        "install 'visual-token-workbench[towers]'"
    )
    for asked in (build, predict):
        with pytest.raises(RequestError) as refusal:
            asked(cell, "meta" if asked is build else "cpu")
        assert str(refusal.value) == wanted
    assert tower_of(resolve("gemma-3n-e4b"), "siglip").tokens_each == 729


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1280, 720), (1, 4000)])
def test_tokens_are_its_processors(width, height):
    processor = SimpleNamespace(image_seq_length=256)
    theirs = Gemma3nProcessor._get_num_multimodal_tokens(processor, image_sizes=[(height, width)])
    mine = tokens("gemma-3n-e2b", resolution=f"{width}x{height}")
    assert [mine["num_visual"]] == theirs["num_image_tokens"]


def test_tokens_that_the_files_disagree_about_are_one_line(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODELS["gemma-3n-e2b"].stated()))
    (tmp_path / "processor_config.json").write_text('{"image_seq_length": 255}')
    with pytest.raises(RequestError, match="image_seq_length 255, but the tower of"):
        tokens(str(tmp_path), resolution="9x9")


def test_an_emulated_rank_has_the_memory_of_all_its_layers(tmp_path):
    """Layers of a kind share weights; those that share keys have each their place."""
    fields = {"pass": "train", "dtype": "bfloat16", "zero": 3, "world_size": 4}
    cell = cell_of(small_model("gemma3n", tmp_path), num_visual=30, kernel="sdpa", **fields)
    peaks = [emulated_peak(cell, trace_emulation(cell, n)).total for n in (7, "all")]
    assert peaks[0] == peaks[1]
