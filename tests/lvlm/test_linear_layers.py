"""Qwen3.5's layers: linear ones as transformers has them, systems on the full ones between."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.lvlm import oracle
from tests.lvlm.definitions import delta_rule
from tests.lvlm.test_kinds import assert_composed
from tests.lvlm.test_oracles import TOLERANCE, relative
from tests.small import MIXED, small_lvlm, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention import linear as module
from workbench.lvlm.attention.linear import (
    CONVOLUTION,
    ROLE,
    RULE,
    LinearLayer,
    fused,
    last_tokens,
)
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.parts.delta_rule import CHUNK
from workbench.lvlm.places import kinds_of, places_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.limit import predicted_limit
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol

DENSE = MIXED[0]
SERVED = sorted(name for name, system in SYSTEMS.items() if system.mixes)
ONCE = Protocol(min_samples=1, precision=None)


def cell_of(folder, family=DENSE, layers=2, **fields):
    return make_cell(
        model=small_model(family, folder, num_hidden_layers=layers),
        **{
            "scope": "decoder",
            "kernel": "eager",
            "dtype": "float32",
            "num_visual": 70,
            "num_text": 9,
            **fields,
        },
    )


def test_who_serves_them():
    assert {"s_attn", "d_attn", "d_attn_full", "d_attn_cascade", "streaming"} <= set(SERVED)
    assert not {
        "himix",
        "saisa",
        "biformer",
        "lsda",
        "fastv",
        "lightning",
        "moh",
        "gated_xattn",
    } & set(SERVED)


def test_three_of_four_are_linear():
    cell = make_cell(model="qwen3.5-27b", scope="decoder", num_visual=1)
    roles = [place.role for place in places_of(cell)]
    assert roles == [ROLE, ROLE, ROLE, ""] * 16
    assert len(set(kinds_of(cell))) == 2


@pytest.mark.parametrize("system", ["s_attn", "d_attn"])
@pytest.mark.parametrize(
    ("layout", "visual", "text"), [("V,T", 0, 5), ("T,V,T", 70, 9), ("V,T", 1, 1)]
)
def test_a_linear_layer_is_its_definition(system, layout, visual, text, tmp_path):
    """Forward and gradients of inputs and weights in float64, under one state or two."""
    cell = cell_of(
        tmp_path,
        scope="layer",
        layer=0,
        dtype="float64",
        attention=system,
        layout=layout,
        num_visual=visual,
        num_text=text,
        batch=2,
        **{"pass": "train"},
    )
    workload = build(cell)
    assert isinstance(workload.module, LinearLayer)
    oracle.widen_norms(workload.module)
    outputs = workload.run_forward()
    workload.run_backward(outputs)
    leaves = [*workload.inputs, *workload.module.parameters()]
    found = [x.grad for x in leaves]
    ((parts, place, _),) = workload.layers
    inputs = workload.inputs
    sequence = inputs[0] if system == "s_attn" else place.layout.join(*inputs)
    out = delta_rule.layer(parts.layer, sequence)
    wanted = (out,) if system == "s_attn" else place.layout.split(out)
    for got, want in zip(outputs, wanted, strict=True):
        assert got.numel() == want.numel() == 0 or relative(got, want) <= TOLERANCE
    pairs = zip(wanted, workload.upstream, strict=True)
    shown = [(out, seed) for out, seed in pairs if out.numel()]
    gradients = torch.autograd.grad(
        [out for out, _ in shown], leaves, [seed for _, seed in shown], materialize_grads=True
    )
    largest = max(gradient.norm() for gradient in gradients)
    for got, want in zip(found, gradients, strict=True):
        assert want.numel() == 0 or (got - want).norm() <= TOLERANCE * max(
            want.norm(), 1e-3 * largest
        )


@pytest.mark.parametrize("family", MIXED)
def test_a_layer_is_transformers_own(family, tmp_path):
    """The real layer's own forward, its own rule in it, over the same weights."""
    for layer in (0, 1):
        workload = build(cell_of(tmp_path, family, scope="layer", layer=layer))
        ((parts, place, _),) = workload.layers
        tables = workload.context.rope(1, "sequence")
        mask = workload.context.mask(place.layout.length, None) if layer else None
        with torch.no_grad():
            wanted = parts.layer(workload.inputs[0], tables, attention_mask=mask)
            (found,) = workload.run_forward()
        assert relative(found, wanted) <= 1e-5


def defined(name, workload):
    """The whole decoder's layers by the definitions, over its own inputs -> the sequence."""
    layout = workload.context.layout
    visual, ids = workload.inputs[:2]
    sequence = layout.join(visual, workload.module.embed_tokens(ids))
    n = layout.length
    seen = oracle.visibility(layout, None, name in ("d_attn", "d_attn_biased"))
    is_visual = torch.zeros(n, dtype=torch.bool)
    is_visual[layout.positions(visual=True)] = True
    across = (~is_visual[:, None] & is_visual[None, :]) if name == "d_attn" else None
    for parts, place, _ in workload.layers:
        if place.role == ROLE:
            sequence = delta_rule.layer(parts.layer, sequence)
        else:
            tables = workload.context.rope(place.index, "sequence")
            sequence = delta_rule.full_layer(parts.layer, parts, sequence, seen, tables, across)
    return delta_rule.norm(workload.module.norm, sequence)


@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_biased", "d_attn_full"])
def test_a_decoder_is_its_definition(system, layout, tmp_path):
    """Two linear and two full layers, gates and all: logits, and gradients of every weight."""
    cell = cell_of(
        tmp_path,
        layers=4,
        attention=system,
        layout=layout,
        kernel="sdpa",
        dtype="float64",
        **{"pass": "train"},
    )
    workload = build(cell)
    oracle.widen_norms(workload.module)
    visual, ids, _ = workload.inputs
    logits = workload.module(visual, ids)
    wanted = defined(system, workload) @ workload.module.lm_head.weight.T
    assert relative(logits, wanted) <= TOLERANCE
    leaves = [visual, *workload.module.parameters()]
    seed = torch.randn_like(wanted)
    ours, theirs = (torch.autograd.grad(x, leaves, seed) for x in (logits, wanted))
    largest = max(gradient.norm() for gradient in theirs)
    for got, want in zip(ours, theirs, strict=True):
        assert (got - want).norm() <= TOLERANCE * max(want.norm(), 1e-3 * largest)


@pytest.mark.parametrize("family", MIXED)
@pytest.mark.parametrize("system", SERVED)
@pytest.mark.parametrize("pass_", ["train", "decode"])
def test_closed_form_is_the_count(family, system, pass_, tmp_path):
    cell = cell_of(tmp_path, family, attention=system, layout="T,V,T", **{"pass": pass_})
    found = trace(cell)
    assert found.flops == found.model_flops
    assert found.params == build(cell).num_parameters


@pytest.mark.parametrize("tokens", [1, 63, 64, 200])
@pytest.mark.parametrize("batch", [1, 3])
def test_closed_form_of_a_linear_layer(tokens, batch, tmp_path):
    cell = cell_of(
        tmp_path, scope="layer", layer=0, num_visual=tokens - 1, num_text=1, batch=batch
    )
    found, chunks = trace(cell), -(-tokens // CHUNK)
    assert found.flops == found.model_flops == found.flops_causal
    mixed, wide, d = 2 * 2 * 8 + 4 * 12, 4 * 12, 32
    projections = tokens * 2 * d * (mixed + 2 * wide + 2 * 4)
    mlp = tokens * 2 * 3 * d * 48
    convolution = 2 * (tokens + 3) * 4 * mixed
    matmuls = 2 * CHUNK * (CHUNK * (8 + 8 + 12) + 3 * 8 * 12)
    solved = CHUNK**2 * (8 + 12)
    expected = projections + mlp + convolution + chunks * 4 * (matmuls + solved)
    assert found.flops == batch * expected
    # A backward is two forwards, but for a triangular system: one like it, and a product.
    step = trace(cell.replace(**{"pass": "train"}))
    assert step.flops == step.model_flops
    assert step.flops - 3 * found.flops == batch * chunks * 4 * solved


@pytest.mark.parametrize("frozen", ["tower", "adapter", "decoder"])
def test_what_a_frozen_part_leaves_out(frozen, tmp_path):
    cell = make_cell(
        model=small_lvlm(DENSE, tmp_path),
        scope="lvlm",
        kernel="eager",
        dtype="float32",
        num_visual=64,
        num_text=9,
        frozen=frozen,
        **{"pass": "train"},
    )
    found = trace(cell)
    assert found.flops == found.model_flops < trace(cell.replace(frozen=None)).flops


@pytest.mark.parametrize("family", MIXED)
@pytest.mark.parametrize("system", ["s_attn", "d_attn"])
@pytest.mark.parametrize(
    "more", [{}, {"checkpoint": True}, {"checkpoint": True, "checkpoint_every": 2}]
)
def test_composed_is_the_whole(family, system, more, tmp_path):
    fields = {"attention": system, "kernel": "sdpa", "num_visual": 300, **more}
    assert_composed(cell_of(tmp_path, family, 10, **fields, **{"pass": "train"}))
    if not more:
        assert_composed(cell_of(tmp_path, family, 10, **fields))
        assert_composed(cell_of(tmp_path, family, 10, **fields, cache=True))


def test_tiles_and_emulated_ranks(tmp_path):
    assert_composed(cell_of(tmp_path, layers=10, tiled=True, **{"pass": "train"}))
    cell = cell_of(tmp_path, layers=4, checkpoint=True, zero=3, world_size=4, logits="text")
    emulated = Protocol(iterations=1, emulate="all")
    record = measure(cell.replace(**{"pass": "train"}), "cpu", emulated)
    assert record.status == "ok", record.flags


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full"])
def test_a_step_is_the_last_row_of_a_prefill(system, tmp_path):
    """Given the states and caches of all tokens but the last."""
    fields = {"attention": system, "dtype": "float64", "layers": 4}
    whole = build(cell_of(tmp_path, **fields))
    oracle.widen_norms(whole.module)
    visual, ids = whole.inputs
    step = build(cell_of(tmp_path, num_text=8, **fields, **{"pass": "decode"}))
    oracle.widen_norms(step.module)
    names = dict(step.module.named_parameters())
    with torch.no_grad():
        for name, parameter in whole.module.named_parameters():
            names[name].copy_(parameter)
        layout = whole.context.layout
        sequence = layout.join(visual, whole.module.embed_tokens(ids))
        state = whole.system.state(visual, whole.module.embed_tokens(ids), layout)
        for ours, theirs, (parts, place, _) in zip(
            whole.module.layers, step.module.layers, whole.layers, strict=True
        ):
            sequence = layout.join(*state) if whole.system.decomposed else state[0]
            x = parts.input_norm(sequence[:, :-1])
            if place.role == ROLE:
                _, mixed, last = ours.delta.prefill(x)
                theirs.tail.copy_(last_tokens(mixed, ours.delta.sizes.taps))
                theirs.state.copy_(last)
            else:
                _hold(whole, theirs, parts, x)
            state = ours(*state)
        wanted = whole.module(visual, ids)[:, -1]
        found = step.module(None, ids[:, -1:])[:, -1]
    assert relative(found, wanted) <= TOLERANCE


def _hold(whole, layer, parts, x):
    """Put keys and values of normed rows into a decode step's cache."""
    cos, sin = (table[:, :-1] for table in whole.context.rope(1, "sequence"))
    key, value = parts.key(x), parts.value(x)
    if whole.system.name == "s_attn":
        layer.keys.copy_(parts.rope(key, cos, sin))
        layer.values.copy_(value)
        return
    n = whole.context.layout.num_visual
    rotated = parts.rope(key, cos, sin)
    seen = rotated if whole.system.name == "d_attn_full" else key
    for stream, rows, keys in (
        ("visual", slice(0, n), seen),
        ("text", slice(n, None), rotated),
    ):
        getattr(layer, f"{stream}_keys").copy_(keys[:, :, rows])
        getattr(layer, f"{stream}_values").copy_(value[:, :, rows])


@pytest.mark.parametrize("family", MIXED)
def test_what_a_cache_holds_is_what_transformers_own_holds(family, tmp_path):
    cell = cell_of(tmp_path, family, layers=4, cache=True, batch=2, dtype="bfloat16")
    workload = build(cell)
    with torch.device("meta"):
        model = resolved_model(cell)
        cache = model(torch.empty(2, 79, dtype=torch.int64), use_cache=True).past_key_values
    theirs = 0
    for layer in cache.layers:
        for held in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            theirs += 0 if held is None else held.nbytes
        states = getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {})
        theirs += sum(x.nbytes for each in states for x in each.values() if x is not None)
    workload.run_forward()
    kept = [x for each in workload.context.caches for x in each.tensors]
    assert sum(x.nbytes for x in kept) == workload.kv_cache_bytes == theirs
    steps = [
        trace(cell.replace(num_visual=n, cache=False, **{"pass": "decode"})) for n in (0, 500)
    ]
    full = 2 * 2 * 2 * 16 * 2  # Two layers, batch, keys and values: of each of 2 heads 16.
    assert steps[1].kv_cache_bytes - steps[0].kv_cache_bytes == 500 * 2 * full


def resolved_model(cell):
    resolved = resolve(cell.model)
    if cell.model.endswith("moe"):
        resolved.config._experts_implementation = "grouped_mm"
    model = resolved.family.from_transformers(f"{resolved.family.prefix}ForCausalLM")(
        resolved.config
    )
    return model.to(torch.bfloat16)


def test_a_narrow_cache_leaves_the_states_wide(tmp_path):
    cell = cell_of(tmp_path, dtype="bfloat16", cache=True)
    wide, narrow = (
        trace(cell.replace(cache_dtype=dtype)).kv_cache_bytes for dtype in (None, "fp8")
    )
    assert wide - narrow == 79 * 2 * 2 * 16 - 2 * 4


@pytest.mark.parametrize("family", MIXED)
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_it_is_measured(family, pass_, tmp_path):
    cell = cell_of(tmp_path, family, num_visual=600, kernel="sdpa", **{"pass": pass_})
    record = measure(cell, "cpu", ONCE)
    assert record.status == "ok", record.flags
    predicted = predict(cell, "cpu")
    assert record.metrics["flops"] == predicted.metrics["flops"]
    assert record.metrics["peak_bytes"] == pytest.approx(predicted.metrics["peak_bytes"], rel=0.02)
    assert record.details["forms"][RULE].startswith("torch's operators")
    assert any(flag.startswith("linear layers: ") for flag in predicted.flags)


@pytest.mark.parametrize("targets", ["all-linear", "in_proj_qkv", "in_proj_b+out_proj"])
def test_adapters_stand_beside_their_projections(targets, tmp_path):
    cell = cell_of(tmp_path, lora=f"r=2,alpha=4,targets={targets}", **{"pass": "train"})
    found = trace(cell)
    made = build(cell)
    trained = sum(p.numel() for p in made.module.parameters() if p.requires_grad)
    assert trained == sum(p.numel for p in found.parameters if p.trained)
    if targets == "in_proj_qkv":
        assert trained == 2 * (32 + 2 * 2 * 8 + 4 * 12)


def test_the_fused_forms_are_asked_for_what_they_compute(tmp_path, monkeypatch):
    """Their published contracts, on a card that has them."""
    asked = {}

    def rule(q, k, v, g, beta, initial_state, output_final_state, use_qk_l2norm_in_kernel):
        assert output_final_state
        assert use_qk_l2norm_in_kernel
        assert q.shape[2] == v.shape[2]
        asked[RULE] = g.dtype
        return delta_rule.recurrence(q, k, v, g, beta, initial_state)

    def convolution(x, weight, bias, activation):
        assert (bias, activation) == (None, "silu")
        asked[CONVOLUTION] = tuple(weight.shape)
        rows = torch.nn.functional.pad(x, (weight.shape[1] - 1, 0))
        return torch.nn.functional.silu(
            torch.nn.functional.conv1d(rows, weight[:, None], groups=x.shape[1])
        )

    package = ModuleType("fla.ops.gated_delta_rule")
    package.chunk_gated_delta_rule = package.fused_recurrent_gated_delta_rule = rule
    own = ModuleType("causal_conv1d")
    own.causal_conv1d_fn = convolution
    for name in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "fla.ops.gated_delta_rule", package)
    monkeypatch.setitem(sys.modules, "causal_conv1d", own)
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    said = []
    card = SimpleNamespace(
        device=torch.device("cuda"), dtype=torch.bfloat16, forms={}, flag=said.append
    )
    workload = build(cell_of(tmp_path, scope="layer", layer=0))
    x = workload.inputs[0]
    with torch.no_grad():
        (wanted,) = workload.module(x)
        delta = workload.module.delta
        delta.rule = fused(card, RULE, "chunk_gated_delta_rule")
        delta.convolution = fused(card, CONVOLUTION, "causal_conv1d_fn")
        (found,) = workload.module(x)
    assert relative(found, wanted) <= 1e-5
    assert asked == {RULE: torch.float32, CONVOLUTION: (80, 4)}
    assert card.forms == {
        RULE: "flash-linear-attention's chunk_gated_delta_rule",
        CONVOLUTION: "causal-conv1d's causal_conv1d_fn",
    }
    assert len(said) == 2
    step = build(cell_of(tmp_path, scope="layer", layer=0, **{"pass": "decode"}))
    tail, state = step.module.tail.clone(), step.module.state.clone()
    with torch.no_grad():
        (wanted,) = step.run_forward()
        after = step.module.state.clone()
        step.module.tail.copy_(tail)
        step.module.state.copy_(state)
        step.module.delta.rule = fused(card, RULE, "fused_recurrent_gated_delta_rule")
        (found,) = step.run_forward()
    assert relative(found, wanted) <= 1e-5
    assert relative(step.module.state, after) <= 1e-5


def test_a_card_without_the_packages_runs_torch_s_form(monkeypatch):
    context = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, forms={})
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert fused(context, RULE, "chunk_gated_delta_rule") is None
    assert "flash-linear-attention is not installed" in context.forms[RULE]
    context.dtype = torch.float32
    assert fused(context, RULE, "chunk_gated_delta_rule") is None
    assert "flash-linear-attention does not take float32" in context.forms[RULE]


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"attention": "himix"}, Unsupported, "himix: most layers of qwen3_5_text are linear"),
        ({"attention": "lightning"}, Unsupported, "lightning has no form for either"),
        ({"attention": "d_attn", "fold": True}, Unsupported, "fold: qwen3_5_text gates"),
        (
            {"ring": 2, "world_size": 2, "kernel": "flash", "pass": "train"},
            Unsupported,
            "ring: most layers of .* are linear",
        ),
        (
            {"ulysses": 2, "world_size": 2, "kernel": "sdpa", "pass": "train"},
            Unsupported,
            "ulysses: most layers",
        ),
    ],
)
def test_what_is_refused(fields, error, said, tmp_path):
    with pytest.raises(error, match=said):
        trace(cell_of(tmp_path, **{"num_visual": 71, **fields}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"linear_num_value_heads": 3}, "linear_num_value_heads 3 is no multiple"),
        ({"layer_types": ["linear_attention", "sliding_attention"]}, "layer_types"),
        ({"linear_conv_kernel_dim": 0}, "linear_conv_kernel_dim 0: a whole number from 1"),
        ({"linear_key_head_dim": 2.5}, "linear_key_head_dim 2.5"),
        ({"attn_output_gate": False}, "attn_output_gate False: true"),
    ],
)
def test_a_config_that_makes_no_sense_is_one_line(fields, said, tmp_path):
    import json

    folder = small_model(DENSE, tmp_path)
    path = tmp_path / DENSE / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(RequestError, match=said) as found:
        resolve(folder)
    assert "\n" not in str(found.value)


def test_a_threshold_is_bracketed(tmp_path):
    """By its own prediction, which the failing end does not fit."""
    cell = cell_of(tmp_path, layers=4, checkpoint=True, logits="text", **{"pass": "train"})
    cell = cell.replace(memory_cap=24 * 2**20)
    found = predicted_limit(cell, "cpu")
    assert found.max_visual < found.fails_at <= 1.01 * found.max_visual + 1
    for size, fits in ((found.max_visual, True), (found.fails_at, False)):
        peak = predict(cell.replace(num_visual=size), "cpu").metrics["peak_bytes"]
        assert (peak <= 24 * 2**20) is fits
