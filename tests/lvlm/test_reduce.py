"""Reducers: |V'| of |V|, held against definitions, counters and modules."""

import pytest
import torch

from tests.lvlm.definitions import settings_of
from tests.small import TOWERS, small_lvlm, small_model
from workbench.errors import RequestError, Unsupported
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build, places_of
from workbench.lvlm.layout import Layout
from workbench.lvlm.reduce import REDUCERS, TokenGrid, reduced_layout, reducer_of
from workbench.probe.counting.trace import trace
from workbench.spec import make_cell


def cell_of(folder, family="mistral", **fields):
    given = {"kernel": "eager", "dtype": "float64", "scope": "decoder", "reduce": "pool"}
    given |= {
        "num_visual": 37,
        "num_text": 7,
        "settings": settings_of(str(fields.get("attention"))),
    }
    given |= fields
    return make_cell(model=small_model(family, folder), **given)


def pool(**settings):
    text = ",".join(f"{name}={value}" for name, value in settings.items())
    return reducer_of(make_cell(num_visual=1, scope="decoder", reduce="pool", settings=text))


@pytest.mark.parametrize("side", [1, 2, 3, 5])
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (5, 7), (1, 1), (9, 3)])
def test_pool_is_the_mean_of_windows(side, rows, columns):
    grid, reducer = TokenGrid.of(rows, columns), pool(side=side)
    x = torch.randn(2, rows * columns, 6, dtype=torch.float64, requires_grad=True)
    found = reducer.build(None, 6)(x, grid)
    image = x.unflatten(1, (rows, columns))
    wanted = [
        image[:, r : r + side, c : c + side].flatten(1, 2).mean(1)
        for r in range(0, rows, side)
        for c in range(0, columns, side)
    ]
    assert found.shape[1] == reducer.tokens(grid) == len(wanted)
    torch.testing.assert_close(found, torch.stack(wanted, 1), atol=1e-12, rtol=0)
    seed = torch.randn_like(found)
    (ours,) = torch.autograd.grad(found, x, seed, retain_graph=True)
    (theirs,) = torch.autograd.grad(torch.stack(wanted, 1), x, seed)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("count", [1, 3, 4, 9, 10])
def test_a_run_is_pooled_window_after_window(count):
    reducer, grid = pool(side=2), TokenGrid(count)
    x = torch.randn(3, count, 5, dtype=torch.float64)
    wanted = torch.stack([x[:, i : i + 4].mean(1) for i in range(0, count, 4)], 1)
    assert reducer.tokens(grid) == wanted.shape[1]
    torch.testing.assert_close(reducer.build(None, 5)(x, grid), wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("attention", sorted(SYSTEMS))
@pytest.mark.parametrize("layout", ["V,T", "T,V,T", "V,T,V,T"])
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_every_system_runs_behind_a_reducer(attention, layout, pass_, tmp_path):
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


@pytest.mark.parametrize("family", sorted(TOWERS))
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_images_are_reduced_between_tower_and_decoder(family, pass_, tmp_path):
    cell = cell_of(tmp_path, scope="lvlm", num_visual=32, **{"pass": pass_})
    cell = cell.replace(model=small_lvlm(family, tmp_path))
    workload, found = build(cell), trace(cell)
    (left,) = {place.layout.num_visual for place in places_of(cell)}
    assert 0 < left < 32
    assert workload.context.layout.num_visual == left
    workload.step()
    (out,) = workload.run_forward()
    assert torch.isfinite(out).all()
    if pass_ == "forward":
        assert out.shape[1] == left + 7
        assert found.flops == found.model_flops
    assert found.params == workload.num_parameters


def test_written_segments_are_whole_images():
    grids = (TokenGrid.of(4, 4),) * 3
    layout = Layout(48, 5, "V32,T,V16,T")
    assert reduced_layout(layout, pool(), grids) == Layout(12, 5, "V8,T,V4,T")
    assert reduced_layout(Layout(48, 5, "V,T"), pool(), grids) == Layout(12, 5, "V,T")
    with pytest.raises(RequestError, match=r"V20 cuts an image.*nearest are V16 and V32"):
        reduced_layout(Layout(48, 5, "V20,T,V28,T"), pool(), grids)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scope": "layer"}, "reduce pool: a single layer"),
        ({"reduce": "pol"}, "reducer 'pol' is unknown"),
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


def test_a_decode_step_meets_the_reduced_cache(tmp_path):
    cell = cell_of(tmp_path, **{"pass": "decode"})
    plain = cell.replace(reduce=None, num_visual=10)
    assert trace(cell).kv_cache_bytes == trace(plain).kv_cache_bytes
    assert trace(cell).flops == trace(plain).flops
    build(cell).step()
