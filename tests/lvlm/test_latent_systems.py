"""Attention systems on families whose attention is latent, against definitions of raw matrices.

A ring of D-Attn, which passes no keys on, is among the cases of ``test_ring.py``.
"""

import pytest
import torch

from tests.lvlm import oracle, test_cmai, test_pruning
from tests.lvlm.definitions import definition, settings_of, step_settings_of
from tests.lvlm.definitions.latent import parts_of
from tests.lvlm.test_decode import fill as fill_of_s_attn
from tests.lvlm.test_kinds import assert_composed
from tests.lvlm.test_oracles import (
    LAYOUTS,
    TOLERANCE,
    assert_equal_to_oracle,
    open_gates,
    relative,
    runs_real_layers,
    small_workload,
)
from tests.small import LATENT, LAYER_SYSTEMS, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.decomposed import DecomposedLayer
from workbench.lvlm.attention.gated_xattn import CrossLayer
from workbench.lvlm.attention.saisa import SaisaLayer
from workbench.lvlm.build import build
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.protocol import Protocol

REFUSED = {
    "cross_lmm": "the projections of its cross-attention",
    "d_attn_cascade": "the projections of a cross-attention of its own",
    "himix": "k_proj_img and v_proj_img",
    "hyper_attn": "kv_proj_img",
    "lightning": "the projections in place of a layer's own",
}
SERVED = sorted(set(SYSTEMS) - set(REFUSED))
OF_A_LAYER = sorted(set(LAYER_SYSTEMS) - set(REFUSED))
KEEPING = sorted(name for name in SERVED if SYSTEMS[name].keeps_cache and SYSTEMS[name].lone_layer)
"""Those in which every layer keeps all tokens."""
MERGES = ("d_attn", "d_attn_biased", "d_attn_sigmoid", "d_attn_sum", "d_attn_tanh")
TRAIN, DECODE = {"pass": "train"}, {"pass": "decode"}
TOKEN = 12 + 4
"""Numbers that a small model's cache has of a token: a latent and the rotated part."""


def cell_of(folder, system="d_attn", family="mistral4", layers=2, **fields):
    shared = {"scope": "decoder", "kernel": "eager", "dtype": "float32", "layout": "T,V,T"}
    return make_cell(
        model=small_model(family, folder, num_hidden_layers=layers),
        attention=system,
        **{"settings": settings_of(system), **shared, "num_visual": 37, "num_text": 9, **fields},
    )


def workload_of(family, folder, system, kernel, **fields):
    """A layer without experts, which compute in no float64."""
    return parts_of(small_workload(family, folder, system, kernel, layer=0, **fields))


@pytest.mark.parametrize("family", LATENT)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("system", OF_A_LAYER)
def test_every_system_against_its_definition(family, layout, system, tmp_path):
    """Mistral 4's heads have one width, as fused kernels need it; DeepSeek V3's have two."""
    for kernel in ("eager", "sdpa") if family == "mistral4" else ("eager",):
        workload = workload_of(family, tmp_path, system, kernel, layout=layout)
        eager_softmax = runs_real_layers(workload) and kernel == "eager"
        assert_equal_to_oracle(workload, 1e-5 if eager_softmax else TOLERANCE)


@pytest.mark.parametrize(
    ("visual", "text", "batch"), [(63, 7, 1), (0, 5, 3), (5, 1, 2), (1, 4, 1)]
)
@pytest.mark.parametrize("system", OF_A_LAYER)
def test_odd_lengths(visual, text, batch, system, tmp_path):
    fields = {"num_visual": visual, "num_text": text, "batch": batch}
    workload = workload_of("deepseek_v3", tmp_path, system, "eager", **fields)
    assert_equal_to_oracle(workload, 1e-5 if runs_real_layers(workload) else TOLERANCE)


@pytest.mark.parametrize(
    "options", [{"fold": True}, {"chunk": 7}, {"checkpoint": True}, {"chunk": 7, "tiled": True}]
)
@pytest.mark.parametrize("family", LATENT)
def test_options_are_exact(options, family, tmp_path):
    workload = workload_of(family, tmp_path, "d_attn", "eager", **options)
    assert_equal_to_oracle(workload)


@pytest.mark.parametrize("family", LATENT)
@pytest.mark.parametrize("fields", [{"q_lora_rank": None}, {"rope_interleave": False}])
def test_other_forms_are_the_real_layer_s(fields, family, tmp_path):
    """Queries without a latent, and parts of which the two halves are turned."""
    cell = make_cell(
        model=small_model(family, tmp_path, **fields),
        attention="d_attn_biased",
        **{"kernel": "eager", "dtype": "float64", "num_visual": 33, "num_text": 9, "layer": 0},
        **TRAIN,
    )
    workload = build(cell)
    oracle.widen_norms(workload.module)
    assert_equal_to_oracle(workload)


@pytest.mark.parametrize("family", LATENT)
@pytest.mark.parametrize("system", ["fastv", "pyramid_drop"])
def test_tokens_that_leave(family, system, tmp_path, monkeypatch):
    made = test_pruning.exact
    monkeypatch.setattr(test_pruning, "exact", lambda cell: parts_of(made(cell)))
    kernel, tolerance = ("sdpa", 1e-9) if family == "mistral4" else ("eager", 1e-5)
    cell = test_pruning.cell_of(tmp_path, system, family, kernel=kernel, layout="T,V,T", **TRAIN)
    test_pruning.assert_equal_to_definition(cell, tolerance)


def step_of(family, folder, system, **fields):
    """A prefill of 10 text tokens and a decode step after 9 of them, with the same weights."""
    cell = make_cell(
        model=small_model(family, folder),
        attention=system,
        **{"kernel": "eager", "dtype": "float64", "settings": step_settings_of(system)},
        **{"batch": 2, "num_visual": 33, "num_text": 10, "layer": 0, **fields},
    )
    plain = {"num_text": 9, "cache": False, "chunk": None}
    prefilled, decoded = build(cell), build(cell.replace(**plain, **DECODE))
    open_gates(prefilled.module)
    decoded.module.load_state_dict(prefilled.module.state_dict())
    for workload in (prefilled, decoded):
        oracle.widen_norms(workload.module)
    return prefilled, decoded


def assert_a_step_is_the_last_row(prefilled, decoded, fill, tolerance=1e-9):
    with torch.no_grad():
        outputs = prefilled.run_forward()
        fill(prefilled, decoded.module)
        decoded.inputs[0].copy_(prefilled.inputs[-1][:, -1:])
        (found,) = decoded.run_forward()
    assert relative(found, outputs[-1][:, -1:]) <= tolerance


def fill(prefilled, target):
    """The latents of the prefill's rows, and the parts beside them as the step reads them."""
    (parts, place, _), *_ = prefilled.layers
    layer, (visual, text) = prefilled.module, prefilled.inputs
    projected = layer.projector(visual) if isinstance(layer, SaisaLayer) else visual
    # An inserted layer reads images as they are.
    rows = projected if isinstance(layer, CrossLayer) else parts.input_norm(projected)
    found = {"visual": parts.entries(rows), "text": parts.entries(parts.input_norm(text[:, :-1]))}
    for stream, kept in found.items():
        if not hasattr(target, f"{stream}_keys"):
            continue
        if stream == "text" or getattr(layer, "rotate_visual", False):
            tables = prefilled.context.rope(place.index, stream)
            kept = parts.rotate(kept, *(table[:, : kept[0].shape[2]] for table in tables))
        for name, values in zip(("keys", "values"), kept, strict=True):
            held = getattr(target, f"{stream}_{name}")
            assert held.shape == values.shape
            held.copy_(values)


@pytest.mark.parametrize("family", LATENT)
@pytest.mark.parametrize(("layout", "visual"), [("T,V,T", 33), ("V,T", 0)])
@pytest.mark.parametrize("system", OF_A_LAYER)
def test_a_step_is_the_last_row_of_the_prefill(family, layout, visual, system, tmp_path):
    prefilled, decoded = step_of(family, tmp_path, system, layout=layout, num_visual=visual)
    if SYSTEMS[system].decomposed:
        assert_a_step_is_the_last_row(prefilled, decoded, fill)
        return

    def as_s_attn(prefilled, target):
        fill_of_s_attn(decoded, prefilled, prefilled.run_forward)

    real = definition(system) is None or system == "streaming"
    assert_a_step_is_the_last_row(prefilled, decoded, as_s_attn, 1e-5 if real else 1e-9)


@pytest.mark.parametrize("family", LATENT)
@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("system", sorted({*MERGES, "saisa"}))
def test_a_step_reads_what_a_prefill_kept(family, chunk, system, tmp_path):
    fields = {"cache": True, "chunk": chunk, "layout": "T,V,T"}
    prefilled, decoded = step_of(family, tmp_path, system, **fields)
    assert isinstance(decoded.module, DecomposedLayer)

    def fill_from_kept(prefilled, target):
        (kept,) = prefilled.context.caches
        pairs = [kept.tensors[:2], kept.tensors[2:]]
        # What is rotated for the text is kept after that.
        visual, text = pairs[::-1] if target.rotate_visual else pairs
        for stream, (latents, parts) in {"visual": visual, "text": text}.items():
            count = 33 if stream == "visual" else 9
            getattr(target, f"{stream}_keys").copy_(latents[:, :, :count])
            getattr(target, f"{stream}_values").copy_(parts[:, :, :count])

    assert_a_step_is_the_last_row(prefilled, decoded, fill_from_kept)


@pytest.mark.parametrize("layout", ["V,T", "V,T,V,T"])
@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("system", KEEPING)
def test_a_prefill_keeps_latents_alone(layout, chunk, system, tmp_path):
    chunk = chunk if "chunk" in SYSTEMS[system].options else None
    cell = cell_of(tmp_path, system, cache=True, layout=layout, chunk=chunk, batch=2)
    workload = build(cell)
    workload.run_forward()
    held = [x for kept in workload.context.caches for x in kept.tensors]
    size = sum(x.untyped_storage().nbytes() for x in {x.data_ptr(): x for x in held}.values())
    assert size == workload.kv_cache_bytes == 2 * 2 * (37 + 9) * TOKEN * 4
    assert size == predict(cell, "cpu").metrics["kv_cache_bytes"]


def test_closed_form_of_a_layer(tmp_path):
    """V visual rows without queries, T rows of text, and pairs of 10 numbers a head and 10."""
    fields = {"scope": "layer", "layer": 0, "num_visual": 20, "num_text": 3, "layout": "V,T"}
    d, h, rank, rope = 32, 4, 12, 4
    queries, expansion = 20 * (d + h * 10), rank * h * (6 + 10)
    visual = d * (rank + rope) + expansion + h * 10 * d + 3 * d * 48
    traced = trace(cell_of(tmp_path, **fields))
    pairs = (3 * 3 + 3 * 20) * 2 * h * (10 + 10)
    assert traced.flops == 2 * (20 * visual + 3 * (visual + queries)) + pairs
    step = trace(cell_of(tmp_path, **fields, **DECODE))
    made_anew = 23 * expansion
    assert step.flops == 2 * (visual + queries + made_anew) + 24 * 2 * h * (10 + 10)
    assert step.kv_cache_bytes == 23 * TOKEN * 4


def test_closed_form_of_heads_of_two_widths(tmp_path):
    fields = {"scope": "layer", "layer": 0, "num_visual": 20, "num_text": 3, "layout": "V,T"}
    d, h, rank, rope = 32, 4, 12, 4
    queries, expansion = 20 * (d + h * 16), rank * h * (12 + 10)
    visual = d * (rank + rope) + expansion + h * 10 * d + 3 * d * 48
    traced = trace(cell_of(tmp_path, family="deepseek_v3", **fields))
    pairs = (3 * 3 + 3 * 20) * 2 * h * (16 + 10)
    assert traced.flops == 2 * (20 * visual + 3 * (visual + queries)) + pairs


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("family", LATENT)
@pytest.mark.parametrize("system", SERVED)
def test_closed_form_is_the_count(pass_, family, system, tmp_path):
    cell = cell_of(tmp_path, system, family, layers=4, batch=2, **{"pass": pass_})
    traced = trace(cell)
    assert traced.flops == traced.model_flops
    assert traced.params == build(cell).num_parameters
    held = [x for name, x in build(cell).module.named_buffers() if "keys" in name or "val" in name]
    if pass_ == "decode" and system != "cmai":  # That holds maps beside them.
        assert traced.kv_cache_bytes == sum(x.nbytes for x in held)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {**TRAIN},
        {**TRAIN, "chunk": 16},
        {**TRAIN, "checkpoint": True},
        {"cache": True},
        {"cache": True, "chunk": 16},
        {**DECODE},
    ],
)
@pytest.mark.parametrize("family", LATENT)
def test_it_is_measured(fields, family, tmp_path):
    cell = cell_of(tmp_path, family=family, num_visual=300, **fields)
    record = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    assert record.status == "ok", record.flags
    predicted = predict(cell, "cpu")
    for metric in ("flops", "params", "active_params", "kv_cache_bytes"):
        assert record.metrics.get(metric) == predicted.metrics.get(metric)
    assert record.metrics["peak_bytes"] == pytest.approx(predicted.metrics["peak_bytes"], rel=0.02)


@pytest.mark.parametrize("system", ["d_attn", "d_attn_biased", "d_attn_tanh", "moh", "saisa"])
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_composed_is_the_whole(system, pass_, tmp_path):
    cell = cell_of(tmp_path, system, layers=8, **{"pass": pass_})
    assert_composed(cell)
    if system == "d_attn":
        assert_composed(cell.replace(chunk=None if pass_ == "decode" else 7))
        if pass_ == "forward":
            assert_composed(cell.replace(cache=True))


@pytest.mark.parametrize("targets", ["all-linear", "kv_b_proj", "q_a_proj+o_proj"])
def test_adapters_stand_beside_its_projections(targets, tmp_path):
    cell = cell_of(tmp_path, lora=f"r=2,alpha=4,targets={targets}", **TRAIN)
    traced = trace(cell)
    trained = [p for p in build(cell).module.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == sum(p.numel for p in traced.parameters if p.trained)
    assert traced.flops == traced.model_flops
    workload = build(cell)
    workload.step()
    assert all(p.grad is not None for p in workload.module.parameters() if p.requires_grad)


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_weights_in_codes_are_read_where_they_are(scheme, tmp_path):
    """By the projections of latents too: as exact as the codes' own rounding."""
    cell = cell_of(tmp_path, scope="decoder", dtype="float32")
    torch.manual_seed(7)
    plain = build(cell)
    torch.manual_seed(7)
    packed = build(cell.replace(weights_dtype=scheme))
    with torch.no_grad():
        (found,), (wanted,) = packed.forward(), plain.forward()
    assert 0 < relative(found, wanted) <= 0.1
    assert trace(packed.cell).flops == trace(cell).flops


@pytest.mark.parametrize("system", sorted(REFUSED))
def test_projections_that_nobody_described_are_refused(system, tmp_path):
    asked = f"{system}: mistral4 makes queries, keys and values of latents, and no source says "
    with pytest.raises(Unsupported, match=f"^{asked}what {REFUSED[system]} would be there; use"):
        trace(cell_of(tmp_path, system))


@pytest.mark.parametrize("kernel", ["sdpa", "flash", "efficient", "cudnn", "flex"])
def test_kernels_of_heads_of_one_width(kernel, tmp_path):
    with pytest.raises(Unsupported, match=r"16 wide .* 10 for values.*; use eager or math$"):
        trace(cell_of(tmp_path, family="deepseek_v3", kernel=kernel))
    assert trace(cell_of(tmp_path, kernel=kernel)).flops == trace(cell_of(tmp_path)).flops


def test_other_kernels_of_heads_of_two_widths(tmp_path):
    with pytest.raises(Unsupported, match="'flash_attention_2' serves s_attn only"):
        trace(cell_of(tmp_path, family="deepseek_v3", kernel="flash_attention_2"))
    eager, math = (
        trace(cell_of(tmp_path, family="deepseek_v3", kernel=k)) for k in ("eager", "math")
    )
    assert eager.flops == math.flops


@pytest.mark.parametrize(
    ("model", "kernel"), [("mistral-small-4-119b", "sdpa"), ("kimi-k2.5", "eager")]
)
@pytest.mark.parametrize("pass_", ["forward", "decode"])
def test_published_models_at_scope_lvlm(model, kernel, pass_):
    fields = {"num_visual": 4096, "kernel": kernel, "scope": "lvlm", "pass": pass_}
    plain, ours = (
        trace(make_cell(model=model, attention=a, **fields)) for a in ("s_attn", "d_attn")
    )
    assert ours.flops == ours.model_flops
    assert ours.params == plain.params
    assert ours.kv_cache_bytes == plain.kv_cache_bytes
    if pass_ == "forward":
        assert ours.flops < plain.flops
    else:
        assert ours.flops == plain.flops


@pytest.mark.parametrize("family", LATENT)
def test_what_text_ignores(family, tmp_path, monkeypatch):
    """CMAI, by the map of each layer; transformers' eager softmax is float32, here it is not."""
    real = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, **_: real(x, dim=dim))
    name = small_model(family, tmp_path, num_hidden_layers=3, first_k_dense_replace=3)
    fields = {"attention": "cmai", "settings": settings_of("cmai"), "scope": "decoder", "batch": 2}
    fields |= {"kernel": "eager", "dtype": "float64", "num_visual": 13, "num_text": 6}
    workload = build(make_cell(model=name, layout="T,V,T", **fields))
    oracle.widen_norms(workload.module)
    with torch.no_grad():
        found = workload.module(*workload.inputs)
        assert (
            relative(found, test_cmai.by_definition(parts_of(workload), workload.inputs)) <= 1e-9
        )
