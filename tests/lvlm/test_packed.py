"""Weights in 4 and 8 bits: bytes by the scheme's arithmetic, bitsandbytes' layers, refusals."""

import pytest
import torch
from torch import nn

from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.weights.packed import Packed
from workbench.lvlm.weights.quantized import linear_bytes
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

LAYOUTS = {
    "int4": ("bitsandbytes", {"load_in_4bit": True, "bnb_4bit_use_double_quant": True}),
    "int8": ("bitsandbytes", {"load_in_8bit": True}),
    "fp8": ("fbgemm_fp8", {}),
}
"""The method and the ``quantization_config`` whose bytes ``quantized.linear_bytes`` knows."""

LORA = {
    "scope": "decoder",
    "pass": "train",
    "num_visual": 200,
    "num_text": 11,
    "lora": "r=4",
    "weights_dtype": "int4",
    "dtype": "float32",
    "kernel": "eager",
}
ONCE = Protocol(min_samples=1, precision=None)
WIDE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 997,
    "num_hidden_layers": 5,
}
MATRICES = [(128, 128), (64, 128), (64, 128), (128, 128), (256, 128), (256, 128), (128, 256)]


def packed_bytes(scheme: str, rows: int, columns: int) -> int:
    """Bytes of one matrix [rows, columns] by the scheme's own arithmetic."""
    method, fields = LAYOUTS[scheme]
    return linear_bytes(method, fields, rows, columns)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model("mistral", tmp_path_factory.mktemp("model"), **WIDE)


@pytest.mark.parametrize("scheme", sorted(LAYOUTS))
@pytest.mark.parametrize("shape", [(64, 64), (7, 9), (300, 65), (4096, 14336)])
def test_bytes_are_the_scheme_s_own(scheme, shape):
    rows, columns = shape
    with torch.device("meta"):
        packed = Packed(nn.Linear(columns, rows, bias=False), scheme, torch.device("meta"))
    assert packed.nbytes == packed_bytes(scheme, rows, columns)
    assert packed.nbytes == sum(b.nbytes for b in packed.buffers())


def test_bitsandbytes_holds_as_many(model):
    held = {}
    for name, layer in build(make_cell(**LORA, model=model)).module.named_modules():
        if name.endswith("base_layer"):
            state = layer.weight.quant_state
            tensors = (
                layer.weight,
                state.absmax,
                state.state2.absmax,
                state.offset,
                state.code,
                state.state2.code,
            )
            held[name] = sum(t.nbytes for t in tensors), packed_bytes("int4", *state.shape)
    assert len(held) == 7 * 5
    assert all(found == wanted for found, wanted in held.values())


OPTIONS = [
    {},
    {"checkpoint": True, "attention": "d_attn", "chunk": 64},
    {"dtype": "bfloat16", "kernel": "sdpa"},
    {"lora": None, "pass": "forward"},
    {"lora": None, "pass": "forward", "attention": "d_attn", "cache": True},
]


@pytest.mark.parametrize("fields", OPTIONS)
def test_predicted_is_measured(fields, model):
    cell = make_cell(**{**LORA, "model": model, **fields})
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    for name in ("flops", "model_flops", "params"):
        assert measured.metrics[name] == predicted.metrics[name], name
    peaks = [found.metrics["peak_bytes"] for found in (predicted, measured)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.02 if cell.dtype == "float32" else 0.12)
    assert any(flag.startswith("weights_dtype int4") for flag in predicted.flags)
    assert any(flag.startswith("weights_dtype int4") for flag in measured.flags)


@pytest.mark.parametrize("scheme", sorted(LAYOUTS))
def test_flops_and_parameters_are_those_of_whole_weights(scheme, model):
    cell = make_cell(**{**LORA, "model": model, "weights_dtype": scheme})
    packed, whole = trace(cell), trace(cell.replace(weights_dtype=None))
    assert (packed.flops, packed.params) == (whole.flops, whole.params)
    less = sum(4 * r * c - packed_bytes(scheme, r, c) for r, c in MATRICES) * 5
    found = [predict(cell.replace(weights_dtype=s), "h100-80gb").metrics for s in (None, scheme)]
    assert found[0]["weight_bytes"] - found[1]["weight_bytes"] == less
    assert found[0]["optimizer_bytes"] == found[1]["optimizer_bytes"]


@pytest.mark.parametrize("fields", OPTIONS)
def test_composed_is_whole(fields, model):
    cell = make_cell(**{**LORA, "model": model, **fields})
    composed, whole = trace(cell), trace(cell, compose=False)
    for name in ("flops", "model_flops", "params", "bytes_moved"):
        assert getattr(composed, name) == getattr(whole, name), name
    assert sum(p.bytes(cell) for p in composed.parameters) == sum(
        p.bytes(cell) for p in whole.parameters
    )
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]


def test_gradients_are_those_of_the_widened_weights(model):
    """bitsandbytes' layer against a plain one of the matrix that its codes stand for."""
    import bitsandbytes.functional as codec

    torch.manual_seed(0)
    cell = make_cell(**{**LORA, "model": model, "lora": None, "pass": "forward"})
    layer = next(m for m in build(cell).module.modules() if type(m).__name__ == "Linear4bit")
    wide = codec.dequantize_4bit(layer.weight.view(-1, 1), layer.weight.quant_state)
    x = torch.randn(2, 5, wide.shape[1], requires_grad=True)
    upstream = torch.randn(2, 5, wide.shape[0])
    torch.testing.assert_close(layer(x), x @ wide.T, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(layer(x), x, upstream)
    torch.testing.assert_close(
        found, torch.autograd.grad(x @ wide.T, x, upstream), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora": None}, "weights_dtype int4: such weights cannot be trained; add lora"),
        ({"weights_dtype": "int3"}, "weights_dtype 'int3'"),
        ({"lora": None, "pass": "decode"}, "kernels of a decode step are not modelled"),
        ({"zero": 3, "world_size": 2}, "one process alone holds such weights"),
        ({"dtype": "float64"}, "not float64"),
        ({"lora": None, "pass": "forward", "scope": "layer"}, "of a whole decoder"),
    ],
)
def test_what_cannot_be(fields, message):
    with pytest.raises(RequestError, match=message):
        make_cell(**{**LORA, **fields})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("scheme", "step"), [("int8", 0.5 / 127), ("fp8", 2**-4)])
def test_codes_of_8_bits_are_the_weights_to_half_a_step(scheme, step, dtype):
    """int8: half a step of the row's largest value; e4m3 has three bits behind the first."""
    torch.manual_seed(0)
    base = nn.Linear(65, 37).to(dtype)
    with torch.no_grad():
        base.weight[5] = 0
    packed = Packed(base, scheme, torch.device("cpu"))
    exact, wide = base.weight.detach().double(), packed.widened(dtype).double()
    row = exact.abs().amax(1, keepdim=True)
    # Below the smallest normal code, 2**-6 of 448, e4m3's steps are even: 2**-9.
    allowed = step * (row if scheme == "int8" else exact.abs().clamp_min(row * 2**-6 / 448))
    assert ((wide - exact).abs() <= allowed * 1.001 + 2**-8 * row * (dtype != torch.float32)).all()
    assert (wide[5] == 0).all()
    # The layer is the plain one of that matrix, forward and gradient.
    x = torch.randn(2, 5, 65, dtype=dtype, requires_grad=True)
    upstream = torch.randn(2, 5, 37, dtype=dtype)
    found = packed(x), *torch.autograd.grad(packed(x), x, upstream)
    wanted = x.double() @ wide.T + base.bias.double(), upstream.double() @ wide
    slack = 1e-5 if dtype == torch.float32 else 3e-2
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=slack, atol=slack)


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
@pytest.mark.parametrize("fields", OPTIONS[:2] + OPTIONS[3:4])
def test_8_bits_are_measured_as_predicted(scheme, fields, model):
    cell = make_cell(**{**LORA, "model": model, **fields, "weights_dtype": scheme})
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    for name in ("flops", "model_flops", "params"):
        assert measured.metrics[name] == predicted.metrics[name], name
    peaks = [record.metrics["peak_bytes"] for record in (predicted, measured)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.02)
    workload = build(cell)
    held = [m for m in workload.module.modules() if isinstance(m, Packed)]
    assert sum(m.nbytes for m in held) == sum(packed_bytes(scheme, *s) for s in MATRICES) * 5
