"""The resampler against transformers' Idefics2, and where it stands."""

import pytest
import torch

from tests.lvlm.definitions.resampler import SETTINGS
from tests.small import TOWERS, small_lvlm, small_model
from workbench.lvlm.build import build
from workbench.lvlm.places import places_of
from workbench.lvlm.reduce import TokenGrid
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported


def cell_of(folder, **fields):
    given = {
        "kernel": "eager",
        "dtype": "float64",
        "scope": "decoder",
        "reduce": "resampler",
        "settings": SETTINGS,
        "num_visual": 37,
        "num_text": 7,
        **fields,
    }
    return make_cell(model=small_model("mistral", folder), **given)


def resampler(folder):
    """The module at width 32."""
    return build(cell_of(folder)).module.reducer.reduction


def test_it_is_idefics2s_perceiver(tmp_path):
    """transformers' norms are float32 inside."""
    from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig
    from transformers.models.idefics2.modeling_idefics2 import Idefics2PerceiverResampler

    ours = resampler(tmp_path)
    config = Idefics2PerceiverConfig(
        hidden_size=32,
        resampler_n_latents=5,
        resampler_depth=2,
        resampler_n_heads=4,
        num_key_value_heads=2,
        resampler_head_dim=8,
        rms_norm_eps=1e-6,
    )
    config._attn_implementation = "sdpa"
    theirs = Idefics2PerceiverResampler(config).double()
    with torch.no_grad():
        theirs.latents.copy_(ours.latents)
        theirs.norm.weight.copy_(ours.norm.weight)
        for own, their in zip(ours.layers, theirs.layers, strict=True):
            for source, target in (
                (own.latents_norm, their.input_latents_norm),
                (own.tokens_norm, their.input_context_norm),
                (own.mlp_norm, their.post_attention_layernorm),
                (own.q_proj, their.self_attn.q_proj),
                (own.k_proj, their.self_attn.k_proj),
                (own.v_proj, their.self_attn.v_proj),
                (own.o_proj, their.self_attn.o_proj),
                (own.gate_proj, their.mlp.gate_proj),
                (own.up_proj, their.mlp.up_proj),
                (own.down_proj, their.mlp.down_proj),
            ):
                target.weight.copy_(source.weight)
    x = torch.randn(2, 37, 32, dtype=torch.float64)
    with torch.no_grad():
        seen = torch.ones(2, 37, dtype=torch.int64)
        found, wanted = ours(x, TokenGrid(37)), theirs(context=x, attention_mask=seen)
    assert (found - wanted).norm() <= 1e-6 * wanted.norm()


@pytest.mark.parametrize(
    "family",
    sorted(
        f
        for f in TOWERS
        if not f.startswith(
            (
                *("aria", "ernie", "hyperclovax", "qwen", "glm"),
                *("gemma4", "mllama", "llama4", "deepseek"),
            )
        )
    ),
)
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_it_stands_behind_the_adapter(family, pass_, tmp_path):
    cell = cell_of(tmp_path, scope="lvlm", num_visual=32, **{"pass": pass_})
    cell = cell.replace(model=small_lvlm(family, tmp_path))
    workload, found = build(cell), trace(cell)
    (left,) = {place.layout.num_visual for place in places_of(cell)}
    images = 32 // (4 if family == "gemma3" else 16)
    assert left == workload.context.layout.num_visual == 5 * images
    if pass_ == "forward":
        assert found.flops == found.model_flops
        plain = trace(cell.replace(reduce=None, settings=None))
        assert workload.outside_flops["adapter"] + workload.outside_flops["tower"] < plain.flops
    assert found.params == workload.num_parameters
    workload.step()


def test_refused(tmp_path):
    with pytest.raises(RequestError, match="kv_heads=3: does not divide the 16 heads"):
        build(cell_of(tmp_path, settings="kv_heads=3"))
    cell = cell_of(tmp_path, scope="lvlm", num_visual=32)
    with pytest.raises(Unsupported, match=r"resampler leaves no rows and columns.*M-RoPE"):
        build(cell.replace(model=small_lvlm("qwen2_5_vl", tmp_path)))
