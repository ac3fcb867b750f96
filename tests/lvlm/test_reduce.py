"""Reducers: |V'| of |V|, held against definitions, counters and modules."""

import re
from math import prod
from types import SimpleNamespace

import pytest
import torch

from tests.lvlm.definitions import definition, settings_of, step_settings_of
from tests.small import TOWERS, WRAPPERS, small_lvlm, small_model, small_wrapper
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import FAMILIES, resolve
from workbench.lvlm.places import places_of
from workbench.lvlm.reduce import REDUCERS, ReducedTokens, TokenGrid, reduced_layout, reducer_of
from workbench.lvlm.reduce.tome import groups_of
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol

OTHERS = {
    "aria",
    "deepseek_ocr2",
    "ernie4_5_vl_moe",
    "qwen2_vl",
    "qwen3_5_moe",
    "glm4v_moe",
    "gemma4",
    "mllama",
    "llama4",
}
"""Families without an image of 32 tokens, or without float64; each is asked for two of its own."""
STACKING = {name for name, family in FAMILIES.items() if family.deepstack}
"""Families whose tower feeds the decoder's first layers, too."""
NAMES = sorted(REDUCERS)
AT_DECODER = sorted(set(REDUCERS) - {"pixel_shuffle"})
"""Those that scope decoder serves."""
WEIGHTLESS = sorted(set(REDUCERS) - {"fit", "resampler"})
WIDTH = 32
CONTEXT = SimpleNamespace(flag=lambda text: None)
"""What reducers without weights ask of a context."""
KEYS = 72
"""Width of a key of the paper's tower."""


def both(**settings):
    """Settings by their owner, a system or a reducer, as one text."""
    found = [
        f"{owner}.{one}"
        for owner, text in settings.items()
        for one in (text or "").split(",")
        if one
    ]
    return ",".join(found) or None


def cell_of(folder, family="mistral", **fields):
    given = {"kernel": "eager", "dtype": "float64", "scope": "decoder", "reduce": "pool"}
    given |= {"num_visual": 37, "num_text": 7} | fields
    if "settings" not in fields:
        owners = [fields.get("attention", "s_attn"), *filter(None, [given["reduce"]])]
        given["settings"] = both(**{owner: settings_of(owner) for owner in owners})
    return make_cell(model=small_model(family, folder), **given)


def reducer(name, text=None):
    return reducer_of(make_cell(num_visual=1, scope="decoder", reduce=name, settings=text))


def module_of(name, folder):
    """A reducer under its small settings, and its module for features of WIDTH."""
    found = reducer(name, settings_of(name))
    return found, found.build(build(cell_of(folder, reduce=None)).context, WIDTH)


def beside_of(found, batch, tokens):
    """What a reducer reads beside the features, random."""
    shapes = {"importance": (), "keys": (8,)}
    return [torch.randn(batch, tokens, *shapes[n], dtype=torch.float64) for n in found.needs]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (8, 6), (1,), (6,), (37,)], ids=str)
def test_forward_and_gradients(name, shape, tmp_path):
    found, module = module_of(name, tmp_path)
    grid = TokenGrid.of(*shape) if len(shape) == 2 else TokenGrid(*shape)
    try:
        left = found.tokens(grid)
    except RequestError as error:
        assert name in str(error) or str(grid.tokens) in str(error)  # noqa: PT017
        return
    x = torch.randn(3, grid.tokens, WIDTH, dtype=torch.float64, requires_grad=True)
    beside = beside_of(found, 3, grid.tokens)
    ours = module(x, grid, *beside)
    theirs = definition(name).reduced(found, module, x, grid, *beside)
    assert ours.shape == (3, left, WIDTH * found.side_by_side)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
    seed, leaves = torch.randn_like(ours), [x, *module.parameters()]
    ours, theirs = (torch.autograd.grad(y, leaves, seed) for y in (ours, theirs))
    for got, want in zip(ours, theirs, strict=True):
        assert (got - want).norm() <= 1e-9 * max(1.0, want.norm())


@pytest.mark.parametrize("name", NAMES)
def test_images_of_several_sizes_keep_their_order(name, tmp_path):
    found, module = module_of(name, tmp_path)
    grids = [TokenGrid.of(4, 4), TokenGrid.of(4, 4), TokenGrid.of(2, 4), TokenGrid.of(4, 4)]
    x = torch.randn(2, sum(g.tokens for g in grids), WIDTH, dtype=torch.float64)
    beside = beside_of(found, 2, x.shape[1])
    alone, start = [], 0
    for grid in grids:
        image = slice(start, start + grid.tokens)
        rows, *other = (y[:, image] for y in (x, *beside))
        alone.append(definition(name).reduced(found, module, rows, grid, *other))
        start = image.stop
    torch.testing.assert_close(ReducedTokens(module, grids)(x, *beside), torch.cat(alone, 1))


@pytest.mark.parametrize("attention", sorted(SYSTEMS))
@pytest.mark.parametrize(
    ("layout", "pass_"), [("V,T", "forward"), ("T,V,T", "train"), ("V,T,V,T", "forward")]
)
def test_every_system_runs_behind_pooling(attention, layout, pass_, tmp_path):
    """The decoder costs what it costs on |V'| tokens, and counter and closed form agree."""
    cell = cell_of(tmp_path, attention=attention, layout=layout, **{"pass": pass_})
    plain = cell.replace(reduce=None, num_visual=10)  # ⌈37/4⌉
    found, wanted = trace(cell), trace(plain)
    assert found.flops == wanted.flops
    assert found.flops_causal == wanted.flops_causal
    assert found.params == wanted.params
    if pass_ == "forward":
        assert found.model_flops == found.flops
        assert found.kv_cache_bytes == wanted.kv_cache_bytes
    assert found.timeline.of_kind("inputs") > wanted.timeline.of_kind("inputs")
    workload = build(cell)
    workload.step()
    outputs = workload.run_forward()
    assert all(torch.isfinite(o).all() for o in outputs)


@pytest.mark.parametrize("attention", sorted(SYSTEMS))
@pytest.mark.parametrize("name", sorted(set(AT_DECODER) - {"pool"}))
def test_every_system_runs_behind_every_reducer(attention, name, tmp_path):
    """The decoder costs what it costs on |V'| tokens, the reducer what its closed forms say."""
    own = step_settings_of(attention)
    settings = both(**{attention: own, name: settings_of(name)})
    cell = cell_of(tmp_path, attention=attention, reduce=name, settings=settings)
    found, grid = reducer_of(cell), TokenGrid(37)
    plain = trace(cell.replace(reduce=None, settings=own, num_visual=found.tokens(grid)))
    width, traced = build(cell, "meta").inputs[0].shape[-1], trace(cell)
    assert traced.flops == traced.model_flops == plain.flops + found.flops(grid, width, KEYS)
    assert traced.params == plain.params + found.parameters(width)
    if width == WIDTH or not found.parameters(width):  # HiMix's is 1152: many weights.
        build(cell.replace(**{"pass": "train"})).step()


@pytest.mark.parametrize("name", AT_DECODER)
@pytest.mark.parametrize("options", [{"pass": "forward"}, {"pass": "train", "checkpoint": True}])
def test_composed_is_whole(name, options, tmp_path):
    cell = cell_of(tmp_path, reduce=name, **options)
    cell = cell.replace(model=small_model("mistral", tmp_path, num_hidden_layers=5))
    found, whole = trace(cell), trace(cell, compose=False)
    assert found.flops == whole.flops
    assert found.flops_causal == whole.flops_causal
    assert found.params == whole.params
    assert found.bytes_moved == whole.bytes_moved
    assert found.operators == whole.operators
    assert found.timeline.peak()[0] == whole.timeline.peak()[0]


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_a_backward_is_the_closed_form(name, tmp_path):
    """Of what learns it is two forwards; a choice has none, whatever is frozen."""
    cell = cell_of(tmp_path, reduce=name, scope="lvlm", num_visual=32, **{"pass": "train"})
    cell = cell.replace(model=small_lvlm("mistral", tmp_path))
    for frozen in (None, "tower", "adapter,tower", "reducer,tower"):
        found = trace(cell.replace(frozen=frozen))
        assert found.flops == found.model_flops, frozen


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(WEIGHTLESS)))
def test_what_is_frozen_around_a_reducer_that_learns(name, tmp_path):
    """Counter and closed form differ by what a fused backward recomputes, whatever is frozen."""
    cell = cell_of(tmp_path, reduce=name, scope="lvlm", num_visual=32, **{"pass": "train"})
    cell = cell.replace(model=small_lvlm("mistral", tmp_path))
    more = set()
    for frozen in (None, "tower", "adapter,tower"):
        found = trace(cell.replace(frozen=frozen))
        more.add(found.flops - found.model_flops)
    assert len(more) == 1
    if name == "fit":  # Nothing before it, and nothing of it, has a gradient.
        found = trace(cell.replace(frozen="adapter,reducer,tower"))
        assert found.flops == found.model_flops


def test_side_1_changes_nothing(tmp_path):
    cell = cell_of(tmp_path, settings="side=1", layout="T,V,T")
    torch.manual_seed(3)
    reduced = build(cell)
    torch.manual_seed(3)
    plain = build(cell.replace(reduce=None, settings=None))
    plain.module.load_state_dict(reduced.module.decoder.state_dict())
    visual, ids = reduced.inputs
    torch.testing.assert_close(
        reduced.module(visual, ids), plain.module(visual, ids), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", sorted(set(TOWERS) - STACKING - OTHERS))
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_images_are_reduced_between_tower_and_decoder(name, family, pass_, tmp_path):
    visual = 64 if family == "qwen3_5" else 32  # The smallest image that it takes.
    cell = cell_of(tmp_path, scope="lvlm", num_visual=visual, reduce=name, **{"pass": pass_})
    cell = cell.replace(model=small_lvlm(family, tmp_path))
    try:
        workload, found = build(cell), trace(cell)
    except Unsupported as error:
        assert name in str(error)  # noqa: PT017
        assert family in (
            "gemma3",
            "hyperclovax",
            "qwen2_5_vl",
            "qwen2_5_omni",
            "qwen3_5",
            "glm4v",
            "glm_ocr",
        )
        return
    (left,) = {place.layout.num_visual for place in places_of(cell)}
    whole = {"gemma3": 4, "hyperclovax": 32, "qwen2_5_vl": 32, "qwen3_5": 64, "glm4v": 32}
    tokens = whole.get(family, 16)
    rows = {4: 2, 64: 8}.get(tokens, 4)
    kept = reducer_of(cell).tokens(TokenGrid.of(rows, tokens // rows))
    assert left == workload.context.layout.num_visual == kept * visual // tokens
    workload.step()
    (out,) = workload.run_forward()
    assert torch.isfinite(out).all()
    if pass_ == "forward":
        assert out.shape[1] == left + 7
        assert found.flops == found.model_flops
    assert found.params == workload.num_parameters


@pytest.mark.parametrize("kind", sorted({*WRAPPERS, *OTHERS}))
@pytest.mark.parametrize("name", ["pixel_shuffle", "visionzip"])
def test_every_tower_serves_a_reducer_or_is_named(name, kind, tmp_path):
    model = (small_lvlm if kind in OTHERS else small_wrapper)(kind, tmp_path)
    each = tower_of(resolve(model)).tokens_each
    cell = cell_of(tmp_path, scope="lvlm", reduce=name, dtype="float32")
    cell = cell.replace(model=model, num_visual=2 * each)
    try:
        workload, found = build(cell), trace(cell)
    except (RequestError, Unsupported) as error:  # Of a front end, or of what its images are.
        said = f"reducer {name}.*{tower_of(resolve(model)).front_end}|{name}: |of an image"
        assert re.search(said, str(error))  # noqa: PT017
        return
    assert found.flops == found.model_flops
    assert found.params == workload.num_parameters
    workload.step()


@pytest.mark.parametrize("name", NAMES)
def test_measured(name, tmp_path):
    cell = cell_of(tmp_path, reduce=name, scope="lvlm", dtype="float32", **{"pass": "train"})
    cell = cell.replace(model=small_lvlm("mistral", tmp_path), num_visual=32)
    record, traced = measure(cell, "cpu", Protocol(iterations=1)), trace(cell, compose=False)
    assert record.status == "ok", record.error
    assert record.metrics["flops"] == traced.flops
    assert record.metrics["params"] == traced.params


def test_written_segments_are_whole_images():
    grids, pool = (TokenGrid.of(4, 4),) * 3, reducer("pool")
    layout = Layout(48, 5, "V32,T,V16,T")
    assert reduced_layout(layout, pool, grids) == Layout(12, 5, "V8,T,V4,T")
    assert reduced_layout(Layout(48, 5, "V,T"), pool, grids) == Layout(12, 5, "V,T")
    with pytest.raises(RequestError, match=r"V20 cuts an image.*nearest are V16 and V32"):
        reduced_layout(Layout(48, 5, "V20,T,V28,T"), pool, grids)


@pytest.mark.parametrize("family", sorted(STACKING))
def test_what_deepstack_adds_is_not_reduced(family, tmp_path):
    model = (small_lvlm if family in TOWERS else small_wrapper)(family, tmp_path)
    each = tower_of(resolve(model)).tokens_each
    cell = cell_of(tmp_path, scope="lvlm", num_visual=each).replace(model=model)
    with pytest.raises(Unsupported, match=r"reducer pool: .* adds features to every visual row"):
        build(cell)


@pytest.mark.parametrize("tower", ["mistral", "gemma3", "llava"])
def test_keys_and_importance_are_the_towers(tower, tmp_path):
    """Of its own attention map and key projection, means over heads."""
    llava = tower == "llava"
    model = small_wrapper("llava", tmp_path) if llava else small_lvlm(tower, tmp_path)
    cell = cell_of(tmp_path, scope="lvlm", reduce="visionzip", batch=2).replace(model=model)
    workload = build(cell.replace(num_visual=32, checkpoint=True, **{"pass": "train"}))
    module = workload.module
    attention = module.tower.tower.encoder.layers[1 if llava else 0].self_attn
    seen = {}

    def watch(_, args, kwargs, out):
        keys = attention.k_proj(kwargs.get("hidden_states", *args)).unflatten(-1, (2, 24))
        weights = out[1].mean(1)
        seen["importance"] = weights[:, 0, 1:] if llava else weights.mean(1)
        seen["keys"] = keys.mean(2)[:, 1:] if llava else keys.mean(2)

    handle = attention.register_forward_hook(watch, with_kwargs=True)
    with torch.no_grad(), module.glance.watching():
        module.tower(workload.inputs[0])
    handle.remove()
    for need, found in zip(module.glance.needs, module.glance.take(), strict=True):
        torch.testing.assert_close(found, seen[need])
        patches = found.shape[1]
        assert patches == 16
        tokens = tower_of(resolve(model)).of_tokens(found)
        if tower == "gemma3":  # Four patches a token.
            square = found.unflatten(1, (2, 2, 2, 2)).mean((2, 4)).flatten(1, 2)
            torch.testing.assert_close(tokens, square)
        else:
            assert tokens is found
    workload.step()
    assert module.glance._seen is None


def test_a_tower_that_shows_no_keys_is_named(tmp_path):
    cell = cell_of(tmp_path, scope="lvlm", reduce="tome", num_visual=48)
    with pytest.raises(
        Unsupported, match=r"tome reads keys of .* tower of internvl does not show"
    ):
        build(cell.replace(model=small_wrapper("internvl", tmp_path)))


def test_what_a_tower_shows_costs_its_projections_and_scores(tmp_path):
    tower = tower_of(resolve(small_lvlm("mistral", tmp_path)))
    n, width = 16, 48
    grids = tower.grids(3 * n)
    assert tower.glance_flops(grids, ("keys",)) == 3 * 2 * n * width**2
    both_ = 3 * (4 * n * width**2 + 2 * n**2 * width)
    assert tower.glance_flops(grids, ("importance", "keys")) == both_
    assert tower.glance_flops(grids, ("importance",)) == both_
    assert tower.glance_flops(grids, ()) == 0


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("tome", "keep=1", 9),
        ("visionzip", "dominant=8,contextual=1", 9),
        ("vmtc", "keep=0.25,clusters=0.75", 12),
        ("vmtc", "keep=1", 9),
    ],
)
def test_settings_that_change_nothing(name, settings, count):
    found = reducer(name, settings)
    x = torch.randn(2, count, WIDTH, dtype=torch.float64)
    left = found.build(CONTEXT, WIDTH)(x, TokenGrid(count), *beside_of(found, 2, count))
    if name == "visionzip":  # The contextual one comes last.
        left, x = left.sort(1).values, x.sort(1).values
    assert torch.equal(left, x)


@pytest.mark.parametrize(("blocks", "reaches"), [("(1)1(1)1", True), ("(1)0(1)0", False)])
def test_a_group_of_fit_reaches_others_by_global_layers_alone(blocks, reaches, tmp_path):
    found = reducer("fit", f"group=4,latents=2,blocks={blocks}")
    module = found.build(build(cell_of(tmp_path, reduce=None)).context, WIDTH)
    x = torch.randn(1, 12, WIDTH, dtype=torch.float64)
    noisy = x.clone()
    noisy[:, :4] += torch.randn(1, 4, WIDTH, dtype=torch.float64)  # A constant is normed away.
    before, after = (module(y, TokenGrid(12)) for y in (x, noisy))
    assert not torch.allclose(before[:, :2], after[:, :2])
    assert torch.allclose(before[:, 2:], after[:, 2:]) is not reaches


def test_fit_costs_what_the_page_says():
    found, w = reducer("fit"), 1152
    n, m = 729, 81
    flops = 4 * (24 * w**2 * n + 4 * w * n * 81) + 4 * (24 * w**2 * m + 4 * w * m**2)
    flops += 3 * (4 * w**2 * (m + n) + 4 * w * m * 81)
    assert found.flops(TokenGrid.of(27, 27), w) == flops
    assert found.parameters(w) == 8 * (12 * w**2 + 13 * w) + 3 * (4 * w**2 + 8 * w) + 92 * w
    assert found.tokens(TokenGrid.of(27, 27)) == m


def test_tome_keeps_the_sum_of_all_tokens():
    found = reducer("tome", "keep=0.2")
    x, (keys,) = torch.randn(2, 37, 6, dtype=torch.float64), beside_of(found, 2, 37)
    groups = groups_of(keys, 8)
    sizes = torch.nn.functional.one_hot(groups).sum(1)
    left = found.build(CONTEXT, 6)(x, TokenGrid(37), keys)
    assert sizes.shape == (2, 8)
    torch.testing.assert_close((left * sizes[..., None]).sum(1), x.sum(1))
    # Log-sizes in the scores are repeated tokens.
    q = torch.randn(2, 3, 6, dtype=torch.float64)
    scores = q @ left.mT + sizes.log()[:, None].double()
    repeated = left.gather(1, groups[..., None].expand(-1, -1, 6))
    torch.testing.assert_close(
        torch.softmax(scores, -1) @ left, torch.softmax(q @ repeated.mT, -1) @ repeated
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scope": "layer"}, "reduce pool: a single layer"),
        ({"reduce": "tome", "settings": "keep=0"}, "keep=0: tome leaves a share"),
        (
            {"reduce": "visionzip", "num_visual": 63, "settings": None},
            "dominant=54 .* one here has only 63",
        ),
        ({"reduce": "pol"}, "reducer 'pol' is unknown"),
        ({"reduce": "pixel_shuffle"}, "pixel_shuffle: makes tokens 4 times as wide"),
    ],
)
def test_refused(fields, said, tmp_path):
    with pytest.raises(RequestError, match=said):
        build(cell_of(tmp_path, **fields))


def test_positions_on_a_grid_need_a_grid(tmp_path, monkeypatch):
    monkeypatch.setattr(type(REDUCERS["pool"]), "keeps_grid", False)
    cell = cell_of(tmp_path, scope="lvlm", num_visual=32)
    with pytest.raises(Unsupported, match=r"pool leaves no rows and columns.*M-RoPE"):
        build(cell.replace(model=small_lvlm("qwen2_5_vl", tmp_path)))


@pytest.mark.parametrize("name", AT_DECODER)
def test_a_decode_step_meets_the_reduced_cache(name, tmp_path):
    cell = cell_of(tmp_path, reduce=name, **{"pass": "decode"})
    left = reducer_of(cell).tokens(TokenGrid(37))
    plain = cell.replace(reduce=None, settings=None, num_visual=left)
    assert trace(cell).kv_cache_bytes == trace(plain).kv_cache_bytes
    assert trace(cell).flops == trace(plain).flops
    build(cell).step()


@pytest.mark.parametrize("shape", [(4, 4), (6, 4)], ids=str)
def test_pixel_shuffle_is_idefics3s(shape):
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

    x, ours = torch.randn(2, prod(shape), 6), reducer("pixel_shuffle", "side=2")
    found = ours.build(CONTEXT, 6)(x, TokenGrid.of(*shape))
    if shape[0] == shape[1]:  # Theirs takes squares alone.
        assert torch.equal(found, Idefics3Connector.pixel_shuffle(None, x, 2))
    assert torch.equal(found.flatten(1).sort().values, x.flatten(1).sort().values)


@pytest.mark.parametrize("tower", ["llava", "siglip"])
def test_a_wider_adapter_costs_and_has_what_its_width_says(tower, tmp_path):
    cell = cell_of(tmp_path, scope="lvlm", num_visual=32, reduce="pixel_shuffle")
    cell = cell.replace(model=small_lvlm("mistral", tmp_path))
    cell = cell.replace(tower="siglip" if tower == "siglip" else None)
    plain = cell.replace(reduce=None, settings=None)
    windows, wider, width = 4, 3, 48
    # The paper's adapter norms what it reads.
    each = (WIDTH + 1 if tower == "siglip" else WIDTH) * width
    assert trace(cell).params - trace(plain).params == wider * each
    found = build(cell, "meta").outside_flops["adapter"]
    tokens = cell.num_visual // windows
    assert found == 2 * tokens * WIDTH * (windows * width + WIDTH)


@pytest.mark.parametrize(
    ("family", "attention", "said"),
    [
        ("gemma3", "s_attn", "pixel_shuffle widens .* that of gemma-3 itself merges tokens"),
        ("qwen2_5_vl", "s_attn", "pixel_shuffle widens .* qwen2.5-vl itself merges tokens"),
        ("mistral", "himix", "pixel_shuffle widens the features, whose width himix keeps"),
    ],
)
def test_pixel_shuffle_needs_an_adapter_of_its_own(family, attention, said, tmp_path):
    cell = cell_of(tmp_path, family, scope="lvlm", reduce="pixel_shuffle", attention=attention)
    model = small_lvlm(family, tmp_path)
    with pytest.raises(Unsupported, match=said):
        build(cell.replace(model=model, num_visual=32))


def test_sides_that_divide_are_named():
    with pytest.raises(RequestError, match=r"side=2: .*27 by 27 .*are 1, 3, 9, 27"):
        reducer("pixel_shuffle", "side=2").tokens(TokenGrid.of(27, 27))
