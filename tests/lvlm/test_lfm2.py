"""LFM2: layers that convolve, as transformers runs them, and systems on the layers between."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tests.lvlm import oracle
from tests.lvlm.generation import assert_follows, write_random
from tests.lvlm.test_kinds import assert_composed
from tests.lvlm.test_oracles import TOLERANCE, relative
from tests.small import small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention import linear as module
from workbench.lvlm.attention.linear import CONVOLUTION, ROLE, fused
from workbench.lvlm.attention.short_conv import ShortConvLayer
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.places import places_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol

SERVED = sorted(name for name, system in SYSTEMS.items() if system.mixes)
ONCE = Protocol(min_samples=1, precision=None)


def cell_of(folder, layers=4, mlp=48, **fields):
    types = [("conv", "full_attention")[i % 2] for i in range(layers)]
    own = {"num_hidden_layers": layers, "layer_types": types, "intermediate_size": mlp}
    return make_cell(
        model=small_model("lfm2", folder, **own),
        **{
            "scope": "decoder",
            "kernel": "eager",
            "dtype": "float32",
            "num_visual": 70,
            "num_text": 9,
            **fields,
        },
    )


@pytest.mark.parametrize("system", ["s_attn", "d_attn"])
@pytest.mark.parametrize(
    ("layout", "visual", "text"), [("V,T", 0, 5), ("T,V,T", 70, 9), ("V,T", 1, 1)]
)
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_is_transformers_own_layer(system, layout, visual, text, bias, tmp_path):
    """Forward, and gradients of inputs and weights in float64, under one state or two."""
    fields = {"scope": "layer", "layer": 0, "dtype": "float64", "attention": system}
    fields |= {"layout": layout, "num_visual": visual, "num_text": text, "batch": 2}
    cell = cell_of(tmp_path, **fields, **{"pass": "train"})
    path = Path(cell.model) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "conv_bias": bias}))
    workload = build(cell)
    assert isinstance(workload.module, ShortConvLayer)
    oracle.widen_norms(workload.module)
    outputs = workload.run_forward()
    workload.run_backward(outputs)
    leaves = [*workload.inputs, *workload.module.parameters()]
    own = [x.grad for x in leaves]
    ((parts, place, _),) = workload.layers
    inputs = workload.inputs
    sequence = inputs[0] if system == "s_attn" else place.layout.join(*inputs)
    out = parts.layer(sequence, attention_mask=None)
    wanted = (out,) if system == "s_attn" else place.layout.split(out)
    for got, want in zip(outputs, wanted, strict=True):
        assert got.numel() == want.numel() == 0 or relative(got, want) <= TOLERANCE
    pairs = [(x, seed) for x, seed in zip(wanted, workload.upstream, strict=True) if x.numel()]
    gradients = torch.autograd.grad(
        [x for x, _ in pairs], leaves, [seed for _, seed in pairs], materialize_grads=True
    )
    largest = max(gradient.norm() for gradient in gradients)
    for got, want in zip(own, gradients, strict=True):
        assert want.numel() == 0 or (got - want).norm() <= TOLERANCE * max(
            want.norm(), 1e-3 * largest
        )


@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full"])
def test_a_decoder_is_its_definition(system, layout, tmp_path):
    """The real layers: convolutions over the sequence, the others by the system's definition."""
    cell = cell_of(tmp_path, attention=system, layout=layout, kernel="sdpa", dtype="float64")
    workload = build(cell)
    oracle.widen_norms(workload.module)
    visual, ids = workload.inputs
    (logits,) = workload.run_forward()
    order, embed = workload.context.layout, workload.module.embed_tokens
    sequence = order.join(visual, embed(ids))
    tables = workload.context.rope(1, "sequence")
    text = tuple(table[:, order.positions(visual=False)] for table in tables)
    for parts, place, _ in workload.layers:
        if place.role == ROLE:
            sequence = parts.layer(sequence, attention_mask=None)
        elif system == "d_attn":
            streams = order.split(sequence)
            sequence = order.join(
                *oracle.decomposed_layer("d_attn", None, parts, order, streams, text)
            )
        else:
            seen = oracle.visibility(order, None, diagonal=False)
            sequence = oracle.masked_layer(parts, sequence, seen, tables)
    wanted = workload.module.norm(sequence) @ workload.module.lm_head.weight.T
    assert relative(logits, wanted) <= TOLERANCE


@pytest.mark.parametrize("system", SERVED)
@pytest.mark.parametrize("pass_", ["train", "decode"])
def test_closed_form_is_the_count(system, pass_, tmp_path):
    cell = cell_of(tmp_path, attention=system, layout="T,V,T", **{"pass": pass_})
    traced = trace(cell)
    assert traced.flops == traced.model_flops
    assert traced.params == build(cell).num_parameters


@pytest.mark.parametrize("tokens", [1, 2, 3, 200])
@pytest.mark.parametrize("cache", [False, True])
def test_closed_form_of_a_convolution(tokens, cache, tmp_path):
    fields = {"scope": "layer", "layer": 0, "num_visual": tokens - 1, "num_text": 1, "batch": 3}
    traced = trace(cell_of(tmp_path, cache=cache, **fields))
    width, mlp, taps = 32, 32, 3  # Two thirds of 48.
    rows = max(tokens, taps) if cache else tokens
    expected = tokens * 2 * (4 * width**2 + 3 * width * mlp)
    expected += 2 * (rows + taps - 1) * taps * width
    assert traced.flops == traced.model_flops == traced.flops_causal == 3 * expected
    assert traced.kv_cache_bytes == 3 * width * taps * 4


@pytest.fixture
def checkpoint(tmp_path):
    name = small_model("lfm2", tmp_path)
    resolved = resolve(name)
    return name, write_random(name, lambda: resolved.family.causal_lm()(resolved.config))


def loaded(name, num_text, **fields):
    shared = {"scope": "decoder", "kernel": "eager", "dtype": "float64", "num_visual": 12}
    return build(make_cell(model=name, weights=name, num_text=num_text, **shared, **fields))


def test_loaded_weights_generate_what_transformers_does(checkpoint):
    name, model = checkpoint
    assert_follows(model, lambda num_text: loaded(name, num_text), 1e-5)


def test_a_step_is_transformers_own(checkpoint):
    """Over the states and caches of transformers' own prefill, twice: states go on."""
    name, model = checkpoint
    visual, ids = loaded(name, 5).inputs
    step = loaded(name, 5, **{"pass": "decode"})
    with torch.no_grad():
        own = torch.cat([visual, model.model.embed_tokens(ids)], 1)
        cache = model(inputs_embeds=own, use_cache=True).past_key_values
        for ours, theirs in zip(step.module.layers, cache.layers, strict=True):
            if isinstance(ours, ShortConvLayer):
                ours.tail.copy_(theirs.conv_states[0])
            else:
                ours.keys.copy_(theirs.keys)
                ours.values.copy_(theirs.values)
        word = torch.tensor([[7]])
        wanted = model(input_ids=word, past_key_values=cache, use_cache=True).logits
        assert relative(step.module(None, word), wanted) <= 1e-5
        for ours, theirs in zip(step.module.layers, cache.layers, strict=True):
            if isinstance(ours, ShortConvLayer):
                assert relative(ours.tail, theirs.conv_states[0]) <= 1e-5


@pytest.mark.parametrize("text", [1, 79])
def test_what_a_cache_holds_is_what_transformers_own_holds(text, tmp_path):
    cell = cell_of(tmp_path, num_visual=0, num_text=text, cache=True, batch=2, dtype="bfloat16")
    workload = build(cell)
    resolved = resolve(cell.model)
    with torch.device("meta"):
        model = resolved.family.causal_lm()(resolved.config).to(torch.bfloat16)
        ids = torch.empty(2, text, dtype=torch.int64)
        cache = model(ids, use_cache=True).past_key_values
    theirs = 0
    for layer in cache.layers:
        tensors = [getattr(layer, "keys", None), getattr(layer, "values", None)]
        tensors += getattr(layer, "conv_states", {}).values()
        theirs += sum(x.nbytes for x in tensors if x is not None)
    workload.run_forward()
    own = [x for each in workload.context.caches for x in each.tensors]
    assert sum(x.nbytes for x in own) == workload.kv_cache_bytes == theirs


@pytest.mark.parametrize("system", ["s_attn", "d_attn"])
@pytest.mark.parametrize("more", [{}, {"checkpoint": True}, {"tiled": True}])
def test_composed_is_the_whole(system, more, tmp_path):
    fields = {"attention": system, "kernel": "sdpa", "num_visual": 300, **more}
    assert_composed(cell_of(tmp_path, 12, **fields, **{"pass": "train"}))
    if not more:
        assert_composed(cell_of(tmp_path, 12, **fields, cache=True))


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("system", ["s_attn", "d_attn"])
def test_it_is_measured(system, pass_, tmp_path):
    fields = {"attention": system, "num_visual": 600, "kernel": "sdpa", "pass": pass_}
    # With an MLP as wide as published: oneDNN copies what a convolution reads, before the MLP.
    cell = cell_of(tmp_path, mlp=216, **fields)
    record = measure(cell, "cpu", ONCE)
    assert record.status == "ok", record.flags
    predicted = predict(cell, "cpu")
    assert record.metrics["flops"] == predicted.metrics["flops"]
    assert record.metrics["peak_bytes"] == pytest.approx(predicted.metrics["peak_bytes"], rel=0.02)
    assert any(flag.startswith("gated convolutions: torch's") for flag in predicted.flags)
    if pass_ != "decode":
        assert record.details["forms"][CONVOLUTION].startswith("torch's conv1d")


def test_a_fused_convolution_is_asked_for_what_it_computes(tmp_path, monkeypatch):
    """Its published contract, on a card that has it."""
    asked = []

    def convolution(x, weight, bias, activation):
        asked.append((tuple(weight.shape), bias, activation))
        return F.conv1d(F.pad(x, (weight.shape[1] - 1, 0)), weight[:, None], groups=x.shape[1])

    own = ModuleType("causal_conv1d")
    own.causal_conv1d_fn = convolution
    monkeypatch.setitem(sys.modules, "causal_conv1d", own)
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    card = SimpleNamespace(
        device=torch.device("cuda"), dtype=torch.bfloat16, forms={}, flag=lambda text: None
    )
    workload = build(cell_of(tmp_path, scope="layer", layer=0))
    (x,) = workload.inputs
    with torch.no_grad():
        (wanted,) = workload.module(x)
        workload.module.fused = fused(card, CONVOLUTION, "causal_conv1d_fn")
        (other,) = workload.module(x)
    assert relative(other, wanted) <= 1e-5
    assert asked == [((32, 3), None, None)]


@pytest.mark.parametrize("targets", ["all-linear", "in_proj", "q_proj+out_proj"])
def test_adapters_stand_beside_their_projections(targets, tmp_path):
    cell = cell_of(tmp_path, lora=f"r=2,alpha=4,targets={targets}", **{"pass": "train"})
    traced = trace(cell)
    trained = sum(p.numel() for p in build(cell).module.parameters() if p.requires_grad)
    assert trained == sum(p.numel for p in traced.parameters if p.trained)
    if targets == "in_proj":
        assert trained == 2 * 2 * (32 + 3 * 32)


def test_systems_stand_where_layers_attend(tmp_path):
    cell = cell_of(tmp_path, attention="d_attn", fold=True)
    assert [place.role for place in places_of(cell)] == [ROLE, "", ROLE, ""]
    assert trace(cell).flops == trace(cell).model_flops


@pytest.mark.parametrize("scope", ["layer", "decoder"])
@pytest.mark.parametrize("system", ["himix", "lightning", "gated_xattn"])
def test_what_is_refused(system, scope, tmp_path):
    with pytest.raises(Unsupported, match=f"{system}: most layers of lfm2 are gated convol"):
        trace(cell_of(tmp_path, scope=scope, attention=system, logits="text"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"layer_types": ["conv", "linear_attention"] * 2}, "layer_types 'linear_attention'"),
        ({"layer_types": ["conv"] * 3}, "equal to the number of `layer_types`"),
        ({"conv_L_cache": 0}, "conv_L_cache 0: a whole number from 1"),
        ({"block_multiple_of": 2.5}, "block_multiple_of 2.5"),
        ({"norm_eps": 0}, "norm_eps 0: a number above 0"),
    ],
)
def test_a_config_that_makes_no_sense_is_one_line(fields, reason, tmp_path):
    path = Path(small_model("lfm2", tmp_path)) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(RequestError, match=reason) as error:
        resolve(str(path.parent))
    assert "\n" not in str(error.value)
