"""Decomposed systems where ids have an embedding for every layer and layers share keys."""

import pytest
import torch

from tests.lvlm import embedded_oracle, oracle
from tests.lvlm.definitions import settings_of, streaming
from tests.lvlm.test_oracles import TOLERANCE, open_gates, relative
from tests.small import EMBEDDED, small_model
from workbench.lvlm.attention import STREAM_OPTIONS, SYSTEMS
from workbench.lvlm.attention.streaming import BandedLayer
from workbench.lvlm.build import build
from workbench.vocabulary.cell import make_cell

D_ATTN = (
    "d_attn",
    "d_attn_biased",
    "d_attn_full",
    "d_attn_tanh",
    "d_attn_sigmoid",
    "d_attn_sum",
    "d_attn_cascade",
)
OTHERS = ("streaming", "moh", "himix", "saisa", "hyper_attn", "lsda", "biformer")
"""Of which some choose visual keys themselves, where a window that hides some has no place."""
FIELDS = {name: {"sliding_window": 64} for name in ("lsda", "biformer")}
KERNEL = {"streaming": "sdpa"}
"""transformers' own eager attention has a softmax in float32."""
LAYERS = {0: "own keys", 2: "gives, global", 4: "gives, local", 5: "takes, global", 6: "takes"}


def cell_of(folder, system, **fields):
    return make_cell(
        model=small_model("gemma4", folder, **{**EMBEDDED, **FIELDS.get(system, {})}),
        attention=system,
        **{
            "settings": settings_of(system),
            "kernel": KERNEL.get(system, "eager"),
            "dtype": "float64",
            "pass": "train",
            "batch": 2,
            "num_visual": 23,
            "num_text": 9,
            **fields,
        },
    )


def exact(cell):
    """The workload of a cell, every norm in float64, every gate and scale some value."""
    workload = build(cell)
    oracle.widen_norms(workload.module)
    open_gates(workload.module)
    torch.manual_seed(5)
    for name, buffer in workload.module.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.uniform_(0.5, 1.5)
    return workload


def assert_gradients(found, wanted):
    largest = max(g.norm().item() for g in wanted if g is not None)
    for got, want in zip(found, wanted, strict=True):
        if want is None or want.norm() <= 1e-12 * largest:
            assert got is None or got.norm() <= 1e-12 * largest
        else:
            assert got is not None
            assert relative(got, want) <= TOLERANCE


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
@pytest.mark.parametrize("system", D_ATTN + OTHERS)
def test_a_layer_is_its_definition(system, layout, layer, tmp_path):
    """Outputs, what it gives, and gradients of weights, embeddings and what it takes."""
    kernels = ("eager", "sdpa") if layer in (2, 5) else ("eager",)
    for kernel in kernels if system not in KERNEL else (KERNEL[system],):
        workload = exact(
            cell_of(tmp_path, system, kernel=kernel, scope="layer", layer=layer, layout=layout)
        )
        outputs = workload.run_forward()
        workload.run_backward(outputs)
        leaves = [*workload.inputs, *workload.module.parameters()]
        found = [x.grad for x in leaves]
        expected = embedded_oracle.lone_layer(workload)
        for out, want in zip(outputs, expected, strict=True):
            assert relative(out, want) <= TOLERANCE
        some = [
            (x, g) for x, g in zip(expected, workload.upstream, strict=True) if x.requires_grad
        ]
        outs, upstream = zip(*some, strict=True)
        wanted = torch.autograd.grad(outs, leaves, upstream, allow_unused=True)
        assert_gradients(found, wanted)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"checkpoint": True},
        {"checkpoint": True, "checkpoint_every": 3, "chunk": 7},
        {"chunk": 5, "fold": True, "layout": "T,V,T"},
    ],
)
@pytest.mark.parametrize("system", D_ATTN + OTHERS)
def test_a_decoder_is_its_definition(system, fields, tmp_path):
    """Logits, and gradients of every weight: those of what later layers take reach it."""
    lacking = set(STREAM_OPTIONS) - {*SYSTEMS[system].options}
    fields = {k: v for k, v in fields.items() if k not in lacking}
    workload = exact(cell_of(tmp_path, system, scope="decoder", **fields))
    visual, ids, _ = workload.inputs
    leaves = [visual, *workload.module.parameters()]
    logits = workload.module(visual, ids)
    upstream = torch.randn_like(logits)
    found = torch.autograd.grad(logits, leaves, upstream, allow_unused=True)
    expected = embedded_oracle.decoder(workload, visual, ids)
    assert relative(logits, expected) <= TOLERANCE
    wanted = torch.autograd.grad(expected, leaves, upstream, allow_unused=True)
    assert_gradients(found, wanted)


@pytest.mark.parametrize("layer", [2, 5])
def test_a_band_of_pairs_is_its_definition(layer, tmp_path):
    """Where nothing hides sinks: in the global layers."""
    settings = f"sinks={streaming.SINKS},window={streaming.WINDOW},banded=1"
    workload = exact(
        cell_of(
            tmp_path, "streaming", settings=settings, scope="layer", layer=layer, num_visual=40
        )
    )
    assert isinstance(workload.module.inner, BandedLayer)
    outputs, expected = workload.run_forward(), embedded_oracle.lone_layer(workload)
    for out, want in zip(outputs, expected, strict=True):
        assert relative(out, want) <= TOLERANCE


@pytest.mark.parametrize("pass_", ["forward", "decode"])
def test_all_heads_are_the_released_model(pass_, tmp_path):
    """Decode steps of layers that take keys have no cache there either."""
    fields = {"scope": "decoder", "pass": pass_}
    every, plain = (
        build(cell_of(tmp_path, name, **own, **fields))
        for name, own in (("moh", {"settings": "active=1,shared=0.5"}), ("s_attn", {}))
    )
    plain.module.load_state_dict(every.module.state_dict())
    for one, other in zip(plain.module.buffers(), every.module.buffers(), strict=True):
        one.copy_(other)
    for one, other in zip(plain.inputs, every.inputs, strict=True):
        one.data.copy_(other.data)
    assert torch.equal(plain.run_forward()[0], every.run_forward()[0])
    assert plain.kv_cache_bytes == every.kv_cache_bytes
