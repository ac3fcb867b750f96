"""Gated cross-attention: transformers' own layer, shut gates, and where inserted layers stand."""

import pytest
import torch
from transformers import MllamaConfig
from transformers.models.mllama.configuration_mllama import MllamaTextConfig
from transformers.models.mllama.modeling_mllama import MllamaCrossAttentionDecoderLayer

from tests.lvlm import oracle
from tests.lvlm.definitions.reading import text_alone
from tests.lvlm.test_oracles import relative, small_workload
from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.places import places_of
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

NAMES = {
    "layer.input_layernorm": "input_layernorm",
    "layer.post_attention_layernorm": "post_attention_layernorm",
    "layer.mlp": "mlp",
    "layer.self_attn": "cross_attn",
    "norms.query": "cross_attn.q_norm",
    "norms.key": "cross_attn.k_norm",
    "attention_gate": "cross_attn_attn_gate",
    "mlp_gate": "cross_attn_mlp_gate",
}
"""Beginnings of parameters' names here, and what transformers calls them."""


def theirs(workload):
    """transformers' layer with the workload's weights, in float64 and with its attention."""
    ours = workload.context.model.config
    config = MllamaTextConfig(
        hidden_size=ours.hidden_size,
        num_attention_heads=ours.num_attention_heads,
        num_key_value_heads=ours.num_key_value_heads,
        intermediate_size=ours.intermediate_size,
        rms_norm_eps=ours.rms_norm_eps,
        num_hidden_layers=2,
        cross_attention_layers=[0],
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        pad_token_id=0,
    )
    config._attn_implementation = "sdpa"
    layer = MllamaCrossAttentionDecoderLayer(config, 0).double()
    weights = {}
    for name, value in workload.module.state_dict().items():
        start = next(start for start in NAMES if name.startswith(start))
        weights[name.replace(start, NAMES[start], 1)] = value
    layer.load_state_dict(weights)
    oracle.widen_norms(layer)
    return layer


@pytest.mark.parametrize("layout", ["V,T", "T,V,T", "V,T,V,T"])
def test_it_is_transformers_layer_for_rows_that_see_an_image(layout, tmp_path):
    workload = small_workload("llama", tmp_path, "gated_xattn", "sdpa", layout=layout)
    layer, places = theirs(workload), workload.context.layout
    visual, text = workload.inputs
    at, images = places.positions(visual=False), places.positions(visual=True)
    seen = images[None] < at[:, None]
    # Theirs lets rows that see nothing see everything evenly; here they keep their input.
    rows = seen.any(1)
    out = layer(
        text,
        visual,
        (seen | ~rows[:, None])[None, None],
        None,
        full_text_row_masked_out_mask=rows[None, None, :, None].double(),
    )
    outputs = workload.run_forward()
    assert relative(outputs[1][:, rows], out[:, rows]) <= 1e-9
    assert torch.equal(outputs[1][:, ~rows], text[:, ~rows])
    upstream = torch.randn_like(text) * rows[:, None]
    ours = torch.autograd.grad(outputs[1], [visual, text], upstream)
    wanted = torch.autograd.grad(out, [visual, text], upstream)
    for found, want in zip(ours, wanted, strict=True):
        assert relative(found, want) <= 1e-9


@pytest.mark.parametrize("family", ["mistral", "gemma2", "qwen2_5_vl"])
@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
def test_shut_gates_leave_the_text_decoder(family, layout, tmp_path):
    """Whose text keeps its places in the whole sequence."""
    cell = make_cell(
        model=small_model(family, tmp_path, num_hidden_layers=4),
        attention="gated_xattn",
        kernel="eager",
        dtype="float64",
        scope="decoder",
        num_visual=19,
        num_text=7,
        layout=layout,
        settings="first=1,every=2",
    )
    workload = build(cell)
    workload.step()
    text = build(cell.replace(attention="himix", settings=None))
    own = [layer for layer in workload.module.layers if hasattr(layer, "text_tables")]
    hidden = workload.module.embed_tokens(workload.inputs[1]) * workload.module.embed_scale
    with torch.no_grad():
        for layer, place in zip(own, text.context.places, strict=True):
            parts, tables = layer.parts, text.context.rope(place.index, "text")
            hidden = text_alone(parts, workload.context.layout, hidden, tables)
        wanted = workload.module._logits(workload.module.norm(hidden))
        (found,) = workload.run_forward()
    assert relative(found, wanted) <= 1e-5  # transformers' norms are float32.


def test_inserted_layers_stand_where_llama_has_them():
    """Eight of forty (https://huggingface.co/meta-llama/Llama-3.2-11B-Vision config.json)."""
    places = places_of(make_cell(model="llama-3.1-8b", attention="gated_xattn", num_visual=9))
    inserted = [number for number, place in enumerate(places) if place.inserted]
    assert (len(places), inserted) == (40, list(range(3, 40, 5)))
    assert MllamaConfig().text_config.cross_attention_layers == inserted
    assert [p.index for p in places if not p.inserted] == list(range(32))


def test_parameters_follow_the_family(tmp_path):
    """Biases of q, k and v, the QK-norm and four norms; head norms where it has no QK-norm."""
    d, i = 32, 48
    for family, a, g, own in (
        ("qwen2", 32, 16, 2 * d + 32 + 2 * 16 + 2 * 8),
        ("gemma2", 64, 32, 4 * d + 2 * 16),
        ("gemma3", 64, 32, 4 * d + 2 * 16),
    ):
        cell = make_cell(
            model=small_model(family, tmp_path),
            attention="gated_xattn",
            num_visual=5,
            kernel="eager",
            settings="first=0",
        )
        assert trace(cell).params == 2 * d * a + 2 * d * g + 3 * d * i + own + 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("first=2", "first=2: .* has 2 layers, 0 to 1"),
        ("every=0", "every=0: a whole number from 1"),
        ("last=2", "last: gated_xattn has first, every"),
    ],
)
def test_refused(settings, said, tmp_path):
    with pytest.raises(RequestError, match=said):
        build(
            make_cell(
                model=small_model("mistral", tmp_path),
                attention="gated_xattn",
                num_visual=5,
                settings=settings,
            )
        )
