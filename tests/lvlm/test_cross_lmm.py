"""CrossLMM: the read of the originals, shut gates, and where pooled tokens come from."""

import pytest
import torch

from tests.lvlm import oracle
from tests.lvlm.definitions.cross_lmm import SETTINGS
from tests.lvlm.test_costs import counted
from tests.lvlm.test_decode import fill, pair
from tests.lvlm.test_oracles import (
    assert_equal_to_oracle,
    open_gates,
    oracle_outputs,
    relative,
    small_workload,
)
from tests.small import small_lvlm, small_model
from workbench.lvlm.build import build
from workbench.lvlm.places import places_of
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported


def cell_of(folder, family="mistral", name=small_model, **fields):
    given = {"kernel": "sdpa", "dtype": "float64", "settings": SETTINGS, "num_visual": 33}
    return make_cell(
        model=name(family, folder), attention="cross_lmm", **{**given, "num_text": 9, **fields}
    )


@pytest.mark.parametrize("layout", ["V,T", "T,V,T", "V,T,V,T"])
@pytest.mark.parametrize(
    ("visual", "text", "batch"), [(63, 7, 1), (0, 5, 3), (5, 1, 2), (2, 4, 1), (9, 9, 2)]
)
def test_reads_over_layouts_and_remainders(layout, visual, text, batch, tmp_path):
    workload = small_workload(
        "mistral",
        tmp_path,
        "cross_lmm",
        "sdpa",
        layout=layout,
        layer=1,
        num_visual=visual,
        num_text=text,
        batch=batch,
    )
    assert_equal_to_oracle(workload)


def test_tiles_and_checkpoints_change_no_number(tmp_path):
    plain = small_workload("qwen2", tmp_path, "cross_lmm", "sdpa", layer=1, layout="T,V,T")
    tiled = build(plain.cell.replace(tiled=True, checkpoint=True))
    oracle.widen_norms(tiled.module)
    with torch.no_grad():
        for ours, theirs in zip(tiled.held(), plain.held(), strict=True):
            ours.copy_(theirs)
    for workload in (plain, tiled):
        workload.run_backward(workload.run_forward())
    for a, b in zip(plain.module.parameters(), tiled.module.parameters(), strict=True):
        assert a.grad is None or relative(b.grad, a.grad) <= 1e-12


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
def test_soft_caps_and_windows_of_a_family_whose_heads_are_as_wide(layer, layout, tmp_path):
    """Gemma 2 with 4 heads of 8; the window is of its own attention alone."""
    model = small_model("gemma2", tmp_path, head_dim=8)
    cell = cell_of(
        tmp_path, kernel="eager", layout=layout, layer=layer, num_visual=300, **{"pass": "train"}
    ).replace(model=model)
    workload = build(cell)
    assert any(p.layout.length > 16 for p in places_of(cell))
    oracle.widen_norms(workload.module)
    open_gates(workload.module)
    with torch.no_grad():
        for out, want in zip(workload.run_forward(), oracle_outputs(workload), strict=True):
            assert relative(out, want) <= 1e-5  # transformers' eager softmax is float32.
    counted(cell.replace(**{"pass": "forward"}))


def pooled(originals, segments, size):
    """Runs of ``size`` tokens inside each segment."""
    runs = []
    for segment in segments:
        part = originals[:, segment.offset : segment.offset + segment.length]
        runs += [part[:, i : i + size].mean(1) for i in range(0, segment.length, size)]
    return torch.stack(runs, 1)


@pytest.mark.parametrize("layout", ["V,T", "T,V,T", "V,T,V,T"])
def test_shut_gates_leave_s_attn_over_the_pooled_sequence(layout, tmp_path):
    cell = cell_of(tmp_path, scope="decoder", layout=layout, num_visual=41)
    workload = build(cell)
    left = places_of(cell)[0].layout
    originals = places_of(cell)[0].originals
    plain = build(
        cell.replace(
            attention="s_attn",
            settings=None,
            num_visual=left.num_visual,
            num_text=left.num_text,
            layout=left.pattern,
        )
    )
    names = {
        name.replace(".inner.layer.", ".layer."): value
        for name, value in workload.module.state_dict().items()
    }
    plain.module.load_state_dict(names, strict=False)
    visual, ids = workload.inputs
    with torch.no_grad():
        wanted = plain.module(pooled(visual, originals.visual_segments, 9), ids)
        (found,) = workload.run_forward()
    assert relative(found, wanted) <= 1e-5  # transformers' norms are float32.


def test_runs_stay_inside_their_segments(tmp_path):
    cell = cell_of(tmp_path, scope="decoder", layout="V,T,V,T", num_visual=41)
    (place, _) = places_of(cell)
    assert place.originals.num_visual == 41
    assert place.layout.pattern == "V3,T5,V3,T4"  # ⌈21/9⌉ and ⌈20/9⌉
    with_reducer = cell.replace(reduce="pool", settings="cross_lmm.pool=3,every=2")
    assert places_of(with_reducer)[0].originals.num_visual == 11


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("family", ["mistral", "qwen2_5_vl"])
def test_images_are_pooled_before_the_adapter(family, pass_, tmp_path):
    """4 by 4 tokens in windows of 3 by 3: 4 are left of an image."""
    cell = cell_of(
        tmp_path,
        family,
        small_lvlm,
        scope="lvlm",
        num_visual=32,
        kernel="eager",
        dtype="float32",
        **{"pass": pass_},
    )
    workload, found = build(cell), trace(cell)
    workload.step()
    (out,) = workload.run_forward()
    assert torch.isfinite(out).all()
    left = workload.context.layout.num_visual
    assert 0 < left < 32
    assert workload.context.places[0].originals.num_visual == 32
    assert found.params == workload.num_parameters
    if pass_ == "forward":
        assert out.shape[1] == left + 9
        assert found.flops == found.model_flops
    if family == "mistral" and pass_ != "decode":
        assert left == 8
        plain = trace(cell.replace(attention="s_attn", settings=None))
        of = [
            sum(op.flops * n for op, n in t.operators.items() if op.component == "adapter")
            for t in (found, plain)
        ]
        assert of[0] * 32 == of[1] * 40


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_a_whole_decoder_steps_like_its_prefill(family, tmp_path):
    prefilled, decoded = pair(family, tmp_path, "cross_lmm", "sdpa", scope="decoder")
    with torch.no_grad():
        (logits,) = fill(decoded, prefilled, prefilled.run_forward)
        decoded.inputs[0].copy_(prefilled.inputs[-1][:, -1:])
        (found,) = decoded.run_forward()
    assert relative(found, logits[:, -1:]) <= 1e-9


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"settings": "every=3"}, "every=3: .* has 2 layers"),
        ({"scope": "lvlm", "reduce": "pool", "settings": None}, "reduce pool: cross_lmm pools"),
        ({"scope": "lvlm", "visual_positions": True}, "visual_positions: cross_lmm has two"),
    ],
)
def test_refused(fields, said, tmp_path):
    with pytest.raises(RequestError, match=said):
        build(cell_of(tmp_path, **fields))


@pytest.mark.parametrize("model", ["gemma-2-9b", "gemma-3-4b"])
def test_heads_must_be_as_wide_as_the_hidden_size(model):
    with pytest.raises(Unsupported, match=r"cross_lmm has no output projection, .* of gemma"):
        trace(make_cell(model=model, attention="cross_lmm", kernel="eager", num_visual=9))
