"""FastV and PyramidDrop: tokens that leave are keys that nobody sees any more, in float64."""

from itertools import pairwise
from math import floor

import pytest
import torch
from transformers import DynamicCache

from tests.lvlm import oracle
from tests.lvlm.scaled import scaled_parts
from tests.lvlm.test_kinds import assert_composed
from tests.lvlm.test_oracles import LAYOUTS, relative
from tests.small import FAMILY_NAMES, LATENT, small_lvlm, small_model
from workbench.lvlm.attention.pruning import kept_of
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.place import Place
from workbench.lvlm.places import places_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol

SYSTEMS = ("fastv", "pyramid_drop")
ONCE = Protocol(min_samples=1, precision=None)
HEAD = 2 * 400 * 4096 * 32768
TABLE = {
    "fastv": {9_000: (87.1, 79.8), 74_000: (1423.9, 989.4), 1_000_000: (163_300, 85_365)},
    "pyramid_drop": {9_000: (80.6, 72.6), 74_000: (1458.8, 974.8), 1_000_000: (180_840, 93_702)},
}
"""|V| -> dense and causal TFLOP of Mistral 7B's layers, |T| = 400."""


def cell_of(folder, system, family="mistral", layers=4, **fields):
    model = small_model(family, folder, num_hidden_layers=layers, **extra(family, layers))
    given = {"kernel": "sdpa", "dtype": "float64", "scope": "decoder", "batch": 2}
    given |= {"num_visual": 33, "num_text": 9, "logits": "text", **fields}
    return make_cell(model=model, attention=system, **given)


def extra(family, layers):
    if family in LATENT:  # Experts do not compute in float64.
        return {"first_k_dense_replace": layers}
    kinds = ["sliding_attention", "full_attention"]
    return {"layer_types": (kinds * layers)[:layers]} if family == "gemma3" else {}


def exact(cell):
    torch.manual_seed(5)
    workload = build(cell)
    oracle.widen_norms(workload.module)
    return workload


def attention_row(parts, x, tables, alive):
    """The last row of the attention map of each sample over what is there, mean over heads."""
    y, (cos, sin) = parts.input_norm(x), tables
    q, k = parts.rope(parts.query(y), cos, sin), parts.rope(parts.key(y), cos, sin)
    k = k.repeat_interleave(parts.num_heads // parts.num_kv_heads, 1)
    scores = (q[:, :, -1:] @ k.mT)[:, :, 0] * parts.scale
    if parts.softcap is not None:
        scores = parts.softcap * torch.tanh(scores / parts.softcap)
    seen = alive.clone()
    places = torch.arange(x.shape[1])
    seen &= oracle.near(places[-1], places, parts.window)
    return torch.softmax(scores.masked_fill(~seen[:, None], float("-inf")), -1).mean(1)


def narrowed(parts, x, tables, alive, layout, kept):
    """Without all visual tokens but the ``kept`` that the last row attends to most."""
    weights, left = attention_row(parts, x, tables, alive), torch.zeros_like(alive)
    left[:, layout.positions(visual=False)] = True
    visual = layout.positions(visual=True).tolist()
    for sample in range(len(x)):
        there = [i for i in visual if alive[sample, i]]
        there.sort(key=lambda i: (-weights[sample, i].item(), i))
        left[sample, there[:kept]] = True
    return left


def definition(workload, visual, ids):
    """Logits [B, T, vocab] or of the rows that are left: S-Attn whose keys are masked."""
    decoder, context, cell = workload.module, workload.context, workload.cell
    layout, settings = context.layout, workload.system.settings
    text = decoder.embed_tokens(ids) * decoder.embed_scale
    x = layout.join(visual * decoder.visual_scale, text)
    alive = torch.ones(x.shape[:2], dtype=torch.bool)
    count, whole = len(workload.layers), layout.num_visual
    if cell.attention == "fastv":
        drops = {settings["at"] - 1: round(settings["keep"] * whole)}
    else:
        each = count // settings["stages"]
        shares = range(1, settings["stages"])
        drops = {j * each: floor(whole * settings["keep"] ** j) for j in shares}
    for index, (parts, _, _) in enumerate(workload.layers):
        tables, before = context.rope(index, "sequence"), x
        if index in drops and cell.attention == "pyramid_drop":
            alive = narrowed(parts, x, tables, alive, layout, drops[index])
        seen = oracle.visibility(layout, parts.window, diagonal=False) & alive[:, None]
        seen = seen | torch.eye(x.shape[1], dtype=torch.bool)
        x = oracle.masked_layer(parts, x, seen, tables)
        if index in drops and cell.attention == "fastv":
            alive = narrowed(parts, before, tables, alive, layout, drops[index])
    x = decoder.norm(x)
    if cell.logits == "text":
        x = x[:, layout.positions(visual=False)]
    else:
        x = x[alive].unflatten(0, (len(x), -1))
    scale = decoder.logit_scale
    logits = decoder.lm_head(x) * (1.0 if scale is None else scale)
    cap = decoder.softcap
    return logits if cap is None else torch.tanh(logits / cap) * cap


def assert_equal_to_definition(cell, tolerance=1e-9):
    workload = scaled_parts(exact(cell))
    visual, ids = workload.inputs[:2]
    found = workload.module(visual, ids)
    upstream = torch.randn_like(found)
    leaves = [visual, *workload.module.parameters()]
    ours = torch.autograd.grad(found, leaves, upstream, allow_unused=True)
    wanted = definition(workload, visual, ids)
    theirs = torch.autograd.grad(wanted, leaves, upstream, allow_unused=True)
    assert relative(found, wanted) <= tolerance
    largest = max(g.norm() for g in theirs if g is not None)
    for got, want in zip(ours, theirs, strict=True):
        if want is None or want.norm() <= 1e-12 * largest:
            assert got is None or got.norm() <= 1e-12 * largest
        else:
            assert relative(got, want) <= tolerance


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("logits", ["text", "all"])
def test_every_family_against_the_definition(family, system, logits, tmp_path):
    for kernel, tolerance in (("eager", 1e-5), ("sdpa", 1e-9)):
        cell = cell_of(
            tmp_path,
            system,
            family,
            kernel=kernel,
            logits=logits,
            layout="T,V,T",
            **{"pass": "train"},
        )
        if kernel == "sdpa" and family.startswith(("gemma", "cohere2", "exaone4", "llama4")):
            needs = "soft-capping" if family == "gemma2" else f"{system} .*use eager"
            with pytest.raises(Unsupported, match=needs):
                build(cell)
            continue
        assert_equal_to_definition(cell, tolerance)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("visual", "text", "batch", "keep"),
    [(63, 7, 1, 0.5), (0, 5, 2, 0.5), (5, 2, 3, 0.3), (1, 4, 1, 0.5), (13, 4, 2, 0.0)],
)
def test_layouts_and_odd_lengths(system, layout, visual, text, batch, keep, tmp_path):
    settings = f"keep={keep}" + (",stages=3" if system == "pyramid_drop" else "")
    cell = cell_of(
        tmp_path,
        system,
        layout=layout,
        num_visual=visual,
        num_text=text,
        batch=batch,
        settings=settings,
        **{"pass": "train"},
    )
    assert_equal_to_definition(cell)


@pytest.mark.parametrize("options", [{"checkpoint": True}, {"tiled": True}])
@pytest.mark.parametrize("system", SYSTEMS)
def test_options_are_exact(system, options, monkeypatch, tmp_path):
    monkeypatch.setattr("workbench.lvlm.attention.s_attn.TILE", 8)
    assert_equal_to_definition(cell_of(tmp_path, system, **options, **{"pass": "train"}))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("family", ["mistral", "gemma3", "qwen2_5_vl"])
def test_all_that_stays_is_s_attn(system, family, tmp_path):
    cell = cell_of(tmp_path, system, family, kernel="eager", settings="keep=1", logits="all")
    ours, plain = build(cell), build(cell.replace(attention="s_attn", settings=None))
    plain.module.load_state_dict(ours.module.state_dict())
    with torch.no_grad():
        assert torch.equal(ours.module(*ours.inputs), plain.module(*ours.inputs))
    assert trace(cell).operators == trace(plain.cell).operators


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("layer", [0, 1])
def test_the_ranking_is_the_last_row_of_the_attention_map(family, layer, tmp_path):
    """transformers' own map of its eager attention, whose softmax is float32."""
    workload = exact(cell_of(tmp_path, "fastv", family, kernel="eager"))
    block, (parts, _, _) = workload.module.layers[layer], workload.layers[layer]
    x = torch.randn(2, 42, 32, dtype=torch.float64)
    _, weights = parts.attention(
        parts.input_norm(x),
        position_embeddings=block.tables,
        attention_mask=block.mask,
        **parts.alone,
    )
    torch.testing.assert_close(
        block.last_row(x, None), weights[:, :, -1].mean(1), atol=1e-6, rtol=0
    )


def test_samples_choose_for_themselves(tmp_path):
    workload = exact(cell_of(tmp_path, "pyramid_drop", logits="all", layout="T,V,T"))
    state = workload.system.state(
        workload.inputs[0],
        workload.module.embed_tokens(workload.inputs[1]),
        Layout(33, 9, "T,V,T"),
    )
    kept = []
    for layer in workload.module.layers:
        state = layer(*state)
        kept.append(state[1] if len(state) > 1 else None)
    assert kept[0] is None
    assert [p.shape[1] - 9 for p in kept[1:]] == [16, 8, 4]
    assert (kept[1][0] != kept[1][1]).any()
    text = workload.context.layout.positions(visual=False)
    for earlier, later in pairwise(kept[1:]):
        for sample in range(2):
            assert torch.isin(later[sample], earlier[sample]).all()
            assert torch.isin(text, later[sample]).all()
            assert (later[sample].diff() > 0).all()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("fields", [{"loss_rows": "text"}, {"loss_rows": "all"}])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loss_of_rows_that_are_left(system, fields, layout, tmp_path):
    """Tiled or not, with logits of all rows or of text: the loss of the same text tokens."""
    cell = cell_of(tmp_path, system, logits="all", layout=layout, **{"pass": "train", **fields})
    plain, tiled = exact(cell), exact(cell.replace(tiled=True))
    assert relative(*(w.run_forward()[0].double() for w in (tiled, plain))) <= 1e-6
    if fields["loss_rows"] == "text":
        text = exact(cell.replace(logits="text"))
        assert relative(*(w.run_forward()[0].double() for w in (text, plain))) <= 1e-6
    plain.step()
    assert all(torch.isfinite(x.grad).all() for x in plain.module.parameters())


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    ("family", "kernel", "pass_"),
    [("mistral", "eager", "train"), ("mistral", "sdpa", "forward"), ("gemma2", "eager", "train")],
)
@pytest.mark.parametrize(
    ("layout", "visual", "text", "batch", "logits"),
    [
        ("V,T", 63, 7, 2, "all"),
        ("T,V,T", 63, 7, 1, "text"),
        ("V,T", 0, 5, 1, "all"),
        ("T,V,T", 5, 2, 3, "all"),
    ],
)
def test_closed_form_equals_the_counter(
    system, family, kernel, pass_, layout, visual, text, batch, logits, tmp_path
):
    cell = cell_of(
        tmp_path,
        system,
        family,
        kernel=kernel,
        layout=layout,
        num_visual=visual,
        num_text=text,
        batch=batch,
        logits=logits,
        **{"pass": pass_},
    )
    found = trace(cell)
    assert found.flops == found.model_flops > 0
    assert found.flops_causal == found.model_flops_causal < found.flops


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("visual", [9_000, 74_000, 1_000_000])
def test_mistral_s_layers(system, visual):
    cell = make_cell(
        attention=system,
        kernel="eager",
        scope="decoder",
        num_visual=visual,
        num_text=400,
        logits="text",
    )
    found = predict(cell, "h100-80gb", "none").metrics
    dense, causal = TABLE[system][visual]
    assert (found["flops"] - HEAD) / 1e12 == pytest.approx(dense, rel=2e-3)
    assert (found["flops_causal"] - HEAD) / 1e12 == pytest.approx(causal, rel=2e-3)
    assert found["params"] == 7_248_023_552


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "forward"},
        {"pass": "decode"},
        {"pass": "train"},
        {"pass": "train", "checkpoint": True},
        {"pass": "train", "checkpoint": True, "checkpoint_every": 2},
        {"pass": "train", "checkpoint": True, "offload": True},
    ],
)
def test_composed_is_all_layers_traced(system, fields, tmp_path):
    """Of Gemma 2, whose windows alternate, under a checkpoint: the other passes repeat alike."""
    family = "gemma2" if fields.get("checkpoint") else "mistral"
    settings = "stages=2" if system == "pyramid_drop" else None
    cell = cell_of(
        tmp_path,
        system,
        family,
        layers=17,
        kernel="eager",
        dtype="float32",
        settings=settings,
        **fields,
    )
    assert_composed(cell)


@pytest.mark.parametrize("family", ["mistral", "qwen2_5_vl"])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
def test_a_step_equals_the_last_row_of_the_prefill(family, system, layout, tmp_path):
    """Over the cache that the prefill leaves: V and T tokens, then V' and T."""
    cell = cell_of(tmp_path, system, family, layout=layout, num_text=10)
    prefilled, decoded = exact(cell), exact(cell.replace(num_text=9, **{"pass": "decode"}))
    decoded.module.load_state_dict(prefilled.module.state_dict())
    caches, handles = [], []

    def cached(layer, args, kwargs):
        cache = DynamicCache()
        layer.forward(*args, **kwargs, past_key_values=cache)
        caches.append(cache.layers[layer.self_attn.layer_idx])

    for parts, _, _ in prefilled.layers:
        handles.append(parts.layer.register_forward_pre_hook(cached, with_kwargs=True))
    with torch.no_grad():
        (logits,) = prefilled.run_forward()
        for target, cache in zip(decoded.module.layers, caches, strict=True):
            target.keys.copy_(cache.keys[:, :, :-1])
            target.values.copy_(cache.values[:, :, :-1])
        decoded.inputs[0].copy_(prefilled.inputs[1][:, -1:])
        (found,) = decoded.run_forward()
    assert relative(found, logits[:, -1:]) <= 1e-9
    assert caches[0].keys.shape[2] > caches[-1].keys.shape[2]


@pytest.mark.parametrize("window", [None, 1, 4, 17, 100])
def test_pairs_of_what_is_left_equal_a_brute_force_mask(window):
    for visual, text, kept in ((5, 2, 3), (31, 9, 7), (8, 3, 0), (31, 9, 31)):
        system = build_system("fastv")
        layout = kept_of(Layout(visual, text, "T,V,T"), kept)
        places = sorted(p for kind in (True, False) for p in layout.places(kind).tolist())
        assert len(set(places)) == kept + text
        near = [(i, j) for i in places for j in places if 0 <= i - j < (window or 100)]
        pairs = system.pairs(Place(1, layout), window)
        assert pairs.allowed == len(near)
        assert pairs.dense == (kept + text) ** 2
        end = visual + text
        for kind in (True, False):
            seen = sum(end - p < (window or 100) for p in layout.places(kind).tolist())
            assert layout.num_last(kind, window) == seen


def build_system(name):
    from workbench.lvlm.attention import system_of

    return system_of(make_cell(attention=name, num_visual=9, scope="decoder"))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_measured_on_a_cpu(system, pass_, tmp_path):
    cell = cell_of(tmp_path, system, num_visual=300, dtype="float32", **{"pass": pass_})
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.status == predicted.status == "ok", measured.error
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    assert measured.metrics["peak_bytes"] == pytest.approx(
        predicted.metrics["peak_bytes"], rel=0.05
    )


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("family", ["mistral", "gemma3", "qwen2_5_vl"])
def test_images_of_a_tower(system, family, tmp_path):
    cell = cell_of(
        tmp_path, system, kernel="eager", num_visual=32, scope="lvlm", **{"pass": "train"}
    )
    model = small_lvlm(family, tmp_path, num_hidden_layers=4, **extra(family, 4))
    workload = build(cell.replace(model=model))
    workload.step()
    assert torch.isfinite(workload.run_forward()[0]).all()


@pytest.mark.parametrize(
    ("system", "fields", "error", "said"),
    [
        ("fastv", {"scope": "layer"}, RequestError, "scope layer: fastv acts between layers"),
        ("fastv", {"settings": "at=4"}, RequestError, "fastv: at=4: .* has 4 layers"),
        ("pyramid_drop", {"settings": "stages=5"}, RequestError, "stages=5: .* has 4 layers"),
        ("fastv", {"settings": "keep=1.5"}, RequestError, "keep=1.5: a number from 0 to 1"),
        ("fastv", {"fold": True}, RequestError, "fold: fastv has no such option"),
        ("fastv", {"family": "gemma3"}, Unsupported, r"fastv .*window of gemma3.*\(16 tokens\)"),
        ("fastv", {"family": "gemma2", "kernel": "flex"}, Unsupported, "fastv .*use eager"),
    ],
)
def test_refused(system, fields, error, said, tmp_path):
    with pytest.raises(error, match=said):
        build(cell_of(tmp_path, system, **fields))


def test_where_tokens_leave(tmp_path):
    fast = places_of(cell_of(tmp_path, "fastv", layers=5, num_visual=63, settings="at=3"))
    assert [p.layout.num_visual for p in fast] == [63, 63, 63, 32, 32]
    steps = places_of(cell_of(tmp_path, "pyramid_drop", layers=10, num_visual=63))
    assert [p.layout.num_visual for p in steps] == [63, 63, 31, 31, 15, 15, 7, 7, 7, 7]
    tenths = places_of(
        cell_of(tmp_path, "pyramid_drop", num_visual=1000, settings="keep=0.29")
    )  # 0.29 is a decimal: 1000 * 0.29 ** 2 is 84.1, and 0.29 * 100 no 28.
    assert [p.layout.num_visual for p in tenths] == [1000, 290, 84, 24]


def test_what_a_reader_should_know(tmp_path):
    trained = build(cell_of(tmp_path, "fastv", "gemma2", kernel="eager", **{"pass": "train"}))
    flags = " ".join(trained.context.flags)
    assert "a method for inference" in flags
    assert "evenly spaced" in flags
