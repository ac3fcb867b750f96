"""Hyper attention: its gates, and what it is when its weights are those of the layer."""

import pytest
import torch

from tests.lvlm import oracle
from tests.lvlm.test_costs import counted
from tests.lvlm.test_decode import DECODE, fill, pair
from tests.lvlm.test_oracles import assert_equal_to_oracle, relative, small_workload
from tests.small import small_lvlm, small_model
from workbench.lvlm.attention.row_inputs import NOTHING
from workbench.lvlm.build import build
from workbench.lvlm.places import places_of
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

GATES = ("adaptive", "channel")


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3", "qwen2", "llama4"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("layout", ["V,T", "T,V,T", "V,T,V,T"])
def test_gates_are_their_definitions(family, gate, layout, tmp_path):
    workload = small_workload(
        family,
        tmp_path,
        "hyper_attn",
        "eager",
        layout=layout,
        layer=0,
        settings=f"gate={gate}",
        num_text=25,
    )
    assert_equal_to_oracle(workload)


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
@pytest.mark.parametrize("gate", GATES)
def test_costs_of_the_gates(family, gate, tmp_path):
    cell = make_cell(
        model=small_model(family, tmp_path),
        attention="hyper_attn",
        kernel="eager",
        dtype="float32",
        settings=f"gate={gate}",
        num_visual=21,
        num_text=9,
        layout="T,V,T",
    )
    for visual in (21, 0):
        counted(cell.replace(num_visual=visual))
        counted(cell.replace(num_visual=visual, **DECODE))
    workload, plain = build(cell), build(cell.replace(attention="s_attn", settings=None))
    added = workload.num_parameters - plain.num_parameters
    assert added == workload.system.extra_parameters(*workload.layers[0][:2])


@pytest.mark.parametrize("gate", GATES)
def test_a_gated_step_equals_the_last_row_of_the_prefill(gate, tmp_path):
    prefilled, decoded = pair("mistral", tmp_path, "hyper_attn", "sdpa", settings=f"gate={gate}")
    with torch.no_grad():
        outputs = fill(decoded, prefilled, prefilled.run_forward)
        decoded.inputs[0].copy_(prefilled.inputs[-1][:, -1:])
        (found,) = decoded.run_forward()
    assert relative(found, outputs[-1][:, -1:]) <= 1e-9


@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
def test_with_the_layer_s_own_weights_and_places_it_is_s_attn(layout, tmp_path):
    """W_kv = [W_k; W_v] without bias, and every token its own image."""
    hyper = small_workload("mistral", tmp_path, "hyper_attn", "sdpa", layout=layout, num_text=9)
    parts, context = hyper.layers[0][0], hyper.context
    plain = build(hyper.cell.replace(attention="s_attn", settings=None))
    with torch.no_grad():
        projection, attention = hyper.module.kv_proj_img, parts.attention
        projection.weight.copy_(torch.cat((attention.k_proj.weight, attention.v_proj.weight)))
        projection.bias.zero_()
        plain.module.load_state_dict(hyper.module.state_dict(), strict=False)
        hyper.module.visual_tables = context.rope(0, "visual")
        oracle.widen_norms(plain.module)
        plain.inputs[0].copy_(context.layout.join(*hyper.inputs))
        (sequence,) = plain.run_forward()
        _, text = hyper.run_forward()
    assert relative(text, context.layout.split(sequence)[1]) <= 1e-9


def test_a_shut_gate_is_the_text_alone(tmp_path):
    hyper = small_workload(
        "mistral", tmp_path, "hyper_attn", "sdpa", settings="gate=channel", num_text=9
    )
    with torch.no_grad():
        hyper.module.gate.fill_(-torch.inf)
        _, found = hyper.run_forward()
        wanted = hyper.module.text_stream(hyper.inputs[1], None, None, NOTHING)
    assert relative(found, wanted) <= 1e-12


def test_an_image_stands_at_its_last_token(tmp_path):
    """At scope lvlm images are the tower's, here of 16 tokens; elsewhere segments."""
    cell = make_cell(
        model=small_lvlm("mistral", tmp_path),
        attention="hyper_attn",
        kernel="eager",
        dtype="float32",
        scope="lvlm",
        num_visual=48,
        num_text=4,
        layout="T,V,T",
    )
    workload = build(cell)
    assert workload.context.image_places().tolist() == [17] * 16 + [33] * 16 + [49] * 16
    assert {place.layout.pattern for place in places_of(cell)} == {"T2,V16,V16,V16,T2"}
    layer = build(cell.replace(scope="layer"))
    assert layer.context.image_places().tolist() == [49] * 48


def test_all_three_rows_of_m_rope_have_an_image_s_place(tmp_path):
    """The largest of the three that its last token has, so that the text that follows is next."""
    model = small_lvlm("qwen2_5_vl", tmp_path)
    cell = make_cell(
        model=model,
        attention="hyper_attn",
        kernel="eager",
        dtype="float32",
        scope="lvlm",
        num_visual=64,
        num_text=4,
        layout="V,T",
    )
    context = build(cell).context
    places = context._positions("image")
    assert places.shape == (3, 64)
    assert (places[0] == places[1]).all()
    assert (places[0] == places[2]).all()
    assert len(places[0].unique()) == len(context.images)
    assert int(places.max()) + 1 == int(context._positions("text").min())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("first=2", "first=2: .* has 2 layers, 0 to 1"),
        ("gate=tanh", "gate=tanh: choose joint, adaptive, channel"),
    ],
)
def test_refused(settings, said, tmp_path):
    with pytest.raises(RequestError, match=said):
        build(
            make_cell(
                model=small_model("mistral", tmp_path),
                attention="hyper_attn",
                num_visual=5,
                settings=settings,
            )
        )
