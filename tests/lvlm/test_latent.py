"""Latent attention and experts of Mistral Small 4 and DeepSeek V3, as transformers runs them."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.lvlm.generation import GREEDY, assert_follows, extend, write_random, write_weights
from tests.lvlm.test_kinds import assert_composed
from tests.lvlm.test_oracles import relative
from tests.lvlm.test_wrappers import shown, theirs
from tests.small import LATENT, OWN, PIXTRAL, SHARED, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import FAMILIES, resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol

NAME = "mistral-small-4-119b"
ROPE = OWN["mistral4"]["rope_parameters"]


def cell_of(folder, layers=2, fields=None, family="mistral4", **more):
    name = small_model(family, folder, num_hidden_layers=layers, **(fields or {}))
    shared = {"scope": "decoder", "kernel": "eager", "dtype": "float32"}
    return make_cell(model=name, **{**shared, "num_visual": 64, "num_text": 8, **more})


def test_parameters_of_the_catalogue_are_transformers_own():
    model = resolve(NAME)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    traced = trace(make_cell(model=NAME, scope="lvlm", num_visual=1024, kernel="eager"))
    assert traced.params == sum(p.numel() for p in whole.parameters())
    assert traced.params == pytest.approx(119e9, rel=0.005)
    text = sum(p.numel() for p in whole.get_decoder().parameters())
    assert traced.params_by_component["decoder"] == text + whole.lm_head.weight.numel()
    assert traced.flops == traced.model_flops
    idle = 36 * (128 - 4) * 3 * 4096 * 2048
    assert traced.active_params == traced.params - idle
    assert not model.flags


@pytest.mark.parametrize("family", LATENT)
def test_parameters_are_those_of_published_defaults(family, tmp_path):
    """Of transformers' class, whose defaults are Mistral Small 4's and DeepSeek V3's."""
    config = FAMILIES[family].config({})
    config.save_pretrained(tmp_path)
    model = resolve(str(tmp_path))
    with torch.device("meta"):
        whole = model.family.causal_lm()(model.config)
    traced = trace(make_cell(model=str(tmp_path), scope="decoder", num_visual=64, kernel="eager"))
    assert traced.params == sum(p.numel() for p in whole.parameters())
    assert traced.params == pytest.approx({"mistral4": 119e9, "deepseek_v3": 671e9}[family], 0.005)
    assert traced.flops == traced.model_flops


@pytest.fixture(params=LATENT)
def checkpoint(request, tmp_path):
    name = small_model(request.param, tmp_path)
    resolved = resolve(name)
    resolved.config._experts_implementation = "grouped_mm"
    own = resolved.family.causal_lm()
    return name, write_random(name, lambda: own(resolved.config), dtype=torch.float32)


def loaded(name, num_text, **fields):
    shared = {"scope": "decoder", "kernel": "eager", "dtype": "float32", "num_visual": 12}
    return build(make_cell(model=name, weights=name, num_text=num_text, **shared, **fields))


def test_loaded_weights_generate_what_transformers_does(checkpoint):
    name, model = checkpoint
    assert_follows(model, lambda num_text: loaded(name, num_text), 1e-4)


def test_a_step_is_transformers_own(checkpoint):
    """Over the latents of transformers' own prefill."""
    name, model = checkpoint
    visual, ids = loaded(name, 5).inputs
    step = loaded(name, 5, **{"pass": "decode"})
    with torch.no_grad():
        own = torch.cat([visual, model.model.embed_tokens(ids)], 1)
        cache = model(inputs_embeds=own, use_cache=True).past_key_values
        for ours, layer in zip(step.module.layers, cache.layers, strict=True):
            ours.keys.copy_(layer.keys)
            ours.values.copy_(layer.values)
        word = torch.tensor([[7]])
        wanted = model(input_ids=word, past_key_values=cache, use_cache=True).logits
        assert relative(step.module(None, word), wanted) <= 1e-4


def test_images_are_read_as_transformers_reads_them(tmp_path):
    """From files to logits, and the tokens that follow, under Pixtral's tower."""
    text = FAMILIES["mistral4"].config({**SHARED, **OWN["mistral4"]}).to_dict()
    around = {"image_token_index": 96, "spatial_merge_size": 2, "tie_word_embeddings": False}
    whole = AutoConfig.for_model("mistral3", vision_config=PIXTRAL, text_config=text, **around)
    whole.save_pretrained(tmp_path)
    name, sizes = str(tmp_path), ((61, 40), (40, 130))
    model = write_weights(name, dtype=torch.float32, seed=5)
    cell, pictures = shown(tmp_path, sizes, name, weights=name, dtype="float32")
    workload = build(cell, pictures=pictures)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    inputs = torch.cat([torch.full((1, cell.num_visual), 96), ids], 1)
    extra = theirs("mistral3", tower_of(resolve(name)), sizes, pixels)
    (logits,) = workload.run_forward()
    with torch.no_grad():
        assert relative(logits, model(input_ids=inputs, **extra).logits) <= 1e-3
        expected = model.generate(input_ids=inputs, **extra, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num), pictures=pictures), pixels)
    assert torch.equal(ids[:, 5:], expected[:, -3:])


@pytest.mark.parametrize("fields", [{}, {"q_lora_rank": None}])
@pytest.mark.parametrize("family", LATENT)
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_closed_form_is_the_count(fields, family, pass_, tmp_path):
    """With queries of a latent and without, and with heads of two widths."""
    cell = cell_of(tmp_path, fields=fields, family=family, batch=2, **{"pass": pass_})
    traced = trace(cell)
    assert traced.flops == traced.model_flops
    assert traced.params == build(cell).num_parameters


def test_closed_form_of_a_layer(tmp_path):
    fields = {"scope": "layer", "layer": 0, "num_visual": 20, "num_text": 1}
    d, h, rank, rope = 32, 4, 12, 4
    queries, expansion = 20 * (d + h * 10), rank * h * (6 + 10)
    token = queries + d * (rank + rope) + h * 10 * d + 3 * d * 48
    traced = trace(cell_of(tmp_path, **fields))
    assert traced.flops == 21 * 2 * (token + expansion) + 21**2 * 2 * h * (10 + 10)
    step = trace(cell_of(tmp_path, **fields, **{"pass": "decode"}))
    assert step.flops == 2 * token + 22 * 2 * expansion + 22 * 2 * h * (10 + 10)
    assert step.kv_cache_bytes == 21 * (rank + rope) * 4


def test_what_a_cache_holds_is_what_transformers_own_holds(tmp_path):
    cell = cell_of(tmp_path, cache=True, batch=2, dtype="bfloat16")
    workload = build(cell)
    resolved = resolve(cell.model)
    resolved.config._experts_implementation = "grouped_mm"
    with torch.device("meta"):
        model = resolved.family.causal_lm()(resolved.config).to(torch.bfloat16)
        cache = model(torch.empty(2, 72, dtype=torch.int64), use_cache=True).past_key_values
    wanted = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    workload.run_forward()
    own = [x for each in workload.context.caches for x in each.tensors]
    assert sum(x.nbytes for x in own) == workload.kv_cache_bytes == wanted
    assert wanted == 2 * 2 * 72 * (12 + 4) * 2


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_a_narrow_cache_is_codes_of_latents(scheme, tmp_path):
    cell = cell_of(tmp_path, dtype="bfloat16", cache_dtype=scheme, **{"pass": "decode"})
    workload = build(cell)
    own = [x for name, x in workload.module.named_buffers() if "keys" in name or "values" in name]
    assert sum(x.nbytes for x in own) == workload.kv_cache_bytes
    assert workload.run_forward()[0].isfinite().all()


@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_composed_is_the_whole(pass_, tmp_path):
    assert_composed(cell_of(tmp_path, 8, kernel="sdpa", **{"pass": pass_}))
    assert_composed(cell_of(tmp_path, 8, checkpoint=True, **{"pass": "train"}))
    assert_composed(cell_of(tmp_path, 8, cache=True))


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("family", LATENT)
def test_it_is_measured(family, pass_, tmp_path):
    # A CPU's flash attention has blocks of its own, which in so small a forward are its peak.
    kernel = "sdpa" if family == "mistral4" and pass_ != "forward" else "eager"
    cell = cell_of(tmp_path, family=family, kernel=kernel, num_visual=400, **{"pass": pass_})
    record = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    assert record.status == "ok", record.flags
    predicted = predict(cell, "cpu")
    for metric in ("flops", "params", "active_params"):
        assert record.metrics[metric] == predicted.metrics[metric]
    assert record.metrics["peak_bytes"] == pytest.approx(predicted.metrics["peak_bytes"], rel=0.02)


@pytest.mark.parametrize("targets", ["all-linear", "kv_b_proj", "q_a_proj+o_proj"])
def test_adapters_stand_beside_its_projections(targets, tmp_path):
    cell = cell_of(tmp_path, lora=f"r=2,alpha=4,targets={targets}", **{"pass": "train"})
    traced = trace(cell)
    trained = sum(p.numel() for p in build(cell).module.parameters() if p.requires_grad)
    assert trained == sum(p.numel for p in traced.parameters if p.trained)
    assert traced.flops == traced.model_flops
    if targets == "kv_b_proj":
        assert trained == 2 * 2 * (12 + 4 * 16)


@pytest.mark.parametrize("kernel", ["sdpa", "flash", "efficient", "cudnn", "flex"])
def test_kernels_of_heads_of_one_width(kernel, tmp_path):
    with pytest.raises(Unsupported, match="16 wide for queries and keys and 10 for values"):
        trace(cell_of(tmp_path, family="deepseek_v3", kernel=kernel))
    cells = [cell_of(tmp_path, family="deepseek_v3", kernel=k) for k in ("eager", "math")]
    plain = [trace(cell).flops for cell in cells]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("kernel", ["flash_attention_2", "flash_attention_3"])
def test_a_package_s_kernel_is_given_padded_values(kernel, tmp_path):
    """Heads of 16 for values of 10: the products of scores and values are wider by 6."""
    shared = {"family": "deepseek_v3", "dtype": "bfloat16"}
    padded, plain = (trace(cell_of(tmp_path, kernel=k, **shared)) for k in (kernel, "eager"))
    assert padded.model_flops == plain.model_flops == plain.flops
    assert padded.flops - padded.model_flops == 2 * 72**2 * 2 * 4 * 6


@pytest.mark.parametrize("field", ["ring", "ulysses"])
def test_a_sequence_of_latents_is_not_shared(field, tmp_path):
    cell = cell_of(tmp_path, kernel="sdpa", **{field: 2, "world_size": 2, "pass": "train"})
    with pytest.raises(RequestError, match=f"{field} 2: keys and values .* made of latents"):
        build(cell)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"num_key_value_heads": 2}, "num_key_value_heads 2: 4 as num_attention_heads"),
        ({"qk_rope_head_dim": 3}, "qk_rope_head_dim 3: rotary embeddings need an even one"),
        ({"kv_lora_rank": 0}, "kv_lora_rank 0: a whole number from 1"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok 9: at most n_routed_experts 8"),
        ({"num_experts_per_tok": None}, "num_experts_per_tok is missing"),
        ({"rope_parameters": {**ROPE, "llama_4_scaling_beta": None}}, "llama_4_scaling_beta None"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "of 10 numbers, and qk_rope_head_dim is 4"),
    ],
)
def test_a_config_that_makes_no_sense_is_one_line(fields, reason, tmp_path):
    path = Path(small_model("mistral4", tmp_path)) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(RequestError, match=reason) as error:
        resolve(str(path.parent))
    assert "\n" not in str(error.value)
