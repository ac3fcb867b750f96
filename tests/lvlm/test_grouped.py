"""BiFormer and LSDA: their identities, and a decoder of theirs composed from few layers."""

import pytest
import torch

from tests.lvlm.definitions import biformer, grouped, lsda
from tests.lvlm.test_kinds import assert_composed
from tests.lvlm.test_oracles import relative
from tests.small import small_model
from workbench.lvlm.build import build
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.protocol import Protocol


def cell_of(folder, attention, **fields):
    given = {"kernel": "sdpa", "dtype": "float64", "num_visual": 37, "num_text": 6, "batch": 2}
    model = small_model("mistral", folder, num_hidden_layers=9)
    return make_cell(model=model, attention=attention, **{**given, **fields})


@pytest.mark.parametrize(
    ("attention", "settings"),
    [
        ("biformer", "region=4,topk=100"),  # all regions
        ("biformer", "region=37"),  # one
        ("biformer", "region=100"),  # none: the tail alone
        ("lsda", "width=37"),
        ("lsda", "width=100"),
    ],
)
@pytest.mark.parametrize("layer", [0, 1])
def test_all_keys_are_bidirectional_attention(attention, settings, layer, tmp_path):
    workload = build(cell_of(tmp_path, attention, settings=settings, layer=layer))
    found = workload.run_forward()
    with torch.no_grad():
        wanted = grouped.outputs(
            workload, lambda q, k, n, place: torch.ones(2, n, n, dtype=torch.bool)
        )
    for got, want in zip(found, wanted, strict=True):
        assert relative(got, want) < 1e-6  # transformers' norms are float32.


@pytest.mark.parametrize("kernel", ["eager", "sdpa", "flex"])
@pytest.mark.parametrize(("region", "topk"), [(3, 1), (5, 2), (4, 9)])
def test_any_kernel_and_region(kernel, region, topk, tmp_path):
    cell = cell_of(tmp_path, "biformer", kernel=kernel, settings=f"region={region},topk={topk}")
    workload = build(cell)
    with workload.guard():
        found = workload.run_forward()
    with torch.no_grad():
        wanted = grouped.outputs(
            workload, lambda q, k, n, place: biformer.sees(q, k, n, place, region, topk)
        )
    for got, want in zip(found, wanted, strict=True):
        assert relative(got, want) < 1e-6


@pytest.mark.parametrize("width", [1, 4, 7, 36])
@pytest.mark.parametrize("layer", [0, 1])
def test_groups_of_any_width(width, layer, tmp_path):
    workload = build(cell_of(tmp_path, "lsda", settings=f"width={width}", layer=layer))
    found = workload.run_forward()
    with torch.no_grad():
        wanted = grouped.outputs(workload, lambda q, k, n, place: lsda.sees(q, k, n, place, width))
    for got, want in zip(found, wanted, strict=True):
        assert relative(got, want) < 1e-6


@pytest.mark.parametrize("attention", ["biformer", "lsda"])
@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"checkpoint": True},
        {"checkpoint": True, "checkpoint_every": 2},
        {"skip_last": True, "logits": "text"},
        {"tiled": True},
    ],
)
def test_composed_is_the_whole(attention, pass_, more, tmp_path):
    settings = {"biformer": biformer.SETTINGS, "lsda": lsda.SETTINGS}[attention]
    cell = cell_of(
        tmp_path,
        attention,
        kernel="eager",
        dtype="float32",
        scope="decoder",
        settings=settings,
        layout="V,T,V,T",
        **more,
        **{"pass": pass_},
    )
    whole = assert_composed(cell)
    if pass_ == "forward":
        assert whole.flops == whole.model_flops
        assert whole.flops_causal == whole.model_flops_causal


@pytest.mark.parametrize("attention", ["biformer", "lsda"])
def test_windows_that_bite_are_refused_and_others_are_not(attention, tmp_path):
    model = small_model("gemma2", tmp_path)
    cell = make_cell(model=model, attention=attention, kernel="eager", num_visual=10, num_text=6)
    build(cell.replace(layer=0))
    with pytest.raises(Unsupported, match=rf"{attention} chooses.*window of gemma2.*16 tokens"):
        build(cell.replace(layer=0, num_visual=11))


@pytest.mark.parametrize("attention", ["biformer", "lsda"])
def test_they_are_measured(attention, tmp_path):
    from workbench.probe.measuring.measure import measure

    cell = cell_of(tmp_path, attention, dtype="float32", scope="decoder", **{"pass": "train"})
    record = measure(cell, "cpu", Protocol(iterations=1))
    assert record.status == "ok"
    assert record.metrics["flops"] == trace(cell).flops
    said = [flag for flag in record.flags if "depthwise" in flag]
    assert bool(said) is (attention == "biformer")
