"""Kernels: their numbers where this machine runs them, their refusals, their predictions."""

import time
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask

from tests.lvlm.test_oracles import oracle_outputs, relative, small_workload
from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.kernels.cudnn import CudnnCuda
from workbench.lvlm.kernels.efficient import Repeated
from workbench.lvlm.kernels.flex import block_mask, causal_mod, kernel_options
from workbench.lvlm.layout import Chunk
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.limit import predicted_limit
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported

NAMES = {
    "eager",
    "sdpa",
    "flash",
    "cudnn",
    "efficient",
    "math",
    "flex",
    "flash_attention_2",
    "flash_attention_3",
}
SYSTEMS = ("s_attn", "d_attn", "d_attn_biased", "d_attn_full", "himix", "d_attn_sum")
PRECISIONS = [("float32", 1e-5), ("bfloat16", 1e-2)]


def test_every_kernel_of_the_contract_is_registered():
    assert set(KERNELS) == NAMES
    assert all(KERNELS[name].name == name for name in KERNELS)


def low_precision(exact, kernel, dtype, device="cpu"):
    """The same cell and numbers under another kernel in a lower precision."""
    low = build(exact.cell.replace(kernel=kernel, dtype=dtype), device)
    # A kernel's masks differ, and stand last among what is held.
    for a, b in zip(low.held(), exact.held(), strict=False):
        if a.is_floating_point():
            b.data.copy_(a.data.double())
    return low


def assert_close(exact, low, tolerance):
    """Outputs and, for a train pass, gradients of inputs and weights, by relative norm."""
    wanted = exact.run_forward()
    with low.guard():
        found = low.run_forward()
        if low.cell.pass_ == "train":
            low.run_backward(found)
            exact.run_backward(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert relative(a.detach().double().cpu(), b.detach()) <= tolerance
    pairs = zip(
        [*low.inputs, *low.module.parameters()],
        [*exact.inputs, *exact.module.parameters()],
        strict=True,
    )
    for a, b in pairs:
        if b.grad is not None and b.grad.norm() > 0:
            assert relative(a.grad.double().cpu(), b.grad) <= 5 * tolerance


@pytest.mark.parametrize("kernel", ["flash", "math"])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_fast_kernels_and_their_gradients(kernel, system, dtype, tolerance, tmp_path):
    exact = small_workload("mistral", tmp_path, system, "sdpa", num_visual=129, num_text=17)
    assert_close(exact, low_precision(exact, kernel, dtype), tolerance)


@pytest.mark.parametrize("system", SYSTEMS[1:])
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_flex_forward_in_working_precision(system, dtype, tolerance, tmp_path):
    exact = small_workload(
        "gemma2", tmp_path, system, "eager", num_visual=129, num_text=17, layer=0, **FORWARD
    )
    assert_close(exact, low_precision(exact, "flex", dtype), tolerance)


FORWARD = {"pass": "forward"}


@pytest.mark.parametrize("family", ["gemma2", "llama4"])
@pytest.mark.parametrize("system", SYSTEMS[1:])
@pytest.mark.parametrize(("layout", "layer"), [("V,T", 0), ("V,T", 1), ("T,V,T", 0)])
def test_flex_equals_the_definition_under_soft_cap_window_and_chunk(
    family, system, layout, layer, tmp_path
):
    workload = small_workload(
        family, tmp_path, system, "flex", layout=layout, num_visual=63, layer=layer, **FORWARD
    )
    with torch.no_grad():
        for out, wanted in zip(workload.run_forward(), oracle_outputs(workload), strict=True):
            assert relative(out, wanted) <= 1e-9


@pytest.mark.slow
def test_flex_serves_transformers_own_layer(tmp_path):
    """S-Attn through transformers, which compiles FlexAttention: a soft-cap and a window."""
    exact = small_workload("gemma2", tmp_path, "s_attn", "eager", layer=0, **FORWARD)
    assert_close(exact, low_precision(exact, "flex", "float32"), 1e-5)


CHUNKS = [Chunk(size) for size in (1, 100, 128, 300, 5000)]


@pytest.mark.parametrize("window", [None, 1, 100, 128, 300, 5000, *CHUNKS], ids=repr)
@pytest.mark.parametrize("tokens", [1, 127, 128, 129, 700])
def test_block_masks_equal_torchs_own(window, tokens):
    mod, places = causal_mod(window), torch.arange(tokens)
    ours = block_mask(places, places, window, mod)
    theirs = create_block_mask(mod, 1, 1, tokens, tokens, device="cpu")
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert torch.equal(ours.full_kv_num_blocks, theirs.full_kv_num_blocks)
    for row in range(len(ours.kv_num_blocks[0, 0])):
        count = ours.full_kv_num_blocks[0, 0, row]
        assert torch.equal(
            ours.full_kv_indices[0, 0, row, :count], theirs.full_kv_indices[0, 0, row, :count]
        )


@pytest.mark.parametrize("kernel", ["cudnn", "efficient"])
@pytest.mark.parametrize("system", ["s_attn", "d_attn"])
def test_a_back_end_that_torch_refuses_here_says_so(kernel, system, tmp_path):
    with pytest.raises(Unsupported, match=f"kernel '{kernel}' is refused on cpu .*: \\w+"):
        small_workload("mistral", tmp_path, system, kernel)


@pytest.mark.parametrize(
    ("kernel", "package"),
    [("flash_attention_2", "flash-attn"), ("flash_attention_3", "flash-attn-3")],
)
def test_a_missing_package_is_named(kernel, package, tmp_path):
    if find_spec(KERNELS[kernel].package) is None:
        with pytest.raises(Unsupported, match=f"needs the package {package}"):
            small_workload("mistral", tmp_path, "s_attn", kernel)
    with pytest.raises(Unsupported, match="serves s_attn only"):
        small_workload("mistral", tmp_path, "d_attn", kernel)


def test_flex_cannot_train_on_a_cpu(tmp_path):
    with pytest.raises(Unsupported, match="no backward"):
        small_workload("mistral", tmp_path, "d_attn", "flex")


@pytest.mark.parametrize("kernel", ["sdpa", "flash", "cudnn", "efficient", "math"])
def test_soft_capping_is_refused_by_name(kernel, tmp_path):
    with pytest.raises(Unsupported, match=f"'{kernel}' has no soft-capping .* gemma2"):
        small_workload("gemma2", tmp_path, "s_attn", kernel)


@pytest.mark.parametrize("kernel", ["flash", "cudnn"])
def test_a_window_is_refused_by_name(kernel, tmp_path):
    with pytest.raises(Unsupported, match="takes no mask, which the sliding window of gemma3"):
        small_workload("gemma3", tmp_path, "s_attn", kernel, layer=0)


@pytest.mark.parametrize("kernel", sorted(NAMES))
@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_tanh"])
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_every_kernel_can_be_predicted(kernel, system, pass_, tmp_path):
    cell = make_cell(
        model=small_model("mistral", tmp_path),
        attention=system,
        kernel=kernel,
        num_visual=129,
        num_text=7,
        **{"pass": pass_},
    )
    if kernel.startswith("flash_attention") and system != "s_attn":
        with pytest.raises(Unsupported, match="serves s_attn only"):
            trace(cell)
        return
    found, default = trace(cell), trace(cell.replace(kernel="sdpa"))
    assert found.model_flops == default.model_flops
    if not KERNELS[kernel].skips(windowed=False):
        # A backward with stored probabilities has 4 matmuls a pair, a fused one 5.
        assert found.flops <= default.flops
    else:
        assert found.flops == default.flops
    stands_in = kernel in ("cudnn", "efficient", "flex") or kernel.startswith("flash_attention")
    assert (KERNELS[kernel].traced_as() is not None) == stands_in


@pytest.mark.parametrize("backend", [Repeated(), CudnnCuda()])
@pytest.mark.parametrize("rows", [1, 40])
def test_cuda_operators_take_our_arguments(backend, rows):
    """Shapes only: torch's own meta functions check each operator's schema without a card."""
    q, k, v = (
        torch.empty(2, heads, length, 64, device="meta", dtype=torch.bfloat16)
        for heads, length in ((4, rows), (2, 50), (2, 50))
    )
    out, lse, saved = backend.forward(q, k, v, False, 0.1)
    assert out.shape == q.shape
    assert lse.shape == q.shape[:3]
    assert lse.dtype == torch.float32
    grads = backend.backward(out, q, k, v, out, lse, saved, False, 0.1)
    assert [g.shape for g in grads] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize(("rows", "forced"), [(1, False), (2, True), (63, True), (128, False)])
def test_few_rows_take_flex_s_general_kernel(rows, forced):
    """One row is what torch's decoding kernel is made for; from 128 on it is never chosen."""
    assert kernel_options(rows) == ({"FORCE_USE_FLEX_ATTENTION": True} if forced else None)


SKIPS = {
    "eager": (False, False),
    "math": (False, False),
    "sdpa": (True, False),
    "efficient": (True, False),
    "cudnn": (True, False),
    "flash": (True, False),
    "flex": (True, True),
    "flash_attention_2": (True, True),
    "flash_attention_3": (True, True),
}
"""Whether each kernel skips pairs that causality hides, and those of a layer with a window."""


def test_which_hidden_pairs_each_kernel_skips():
    assert set(SKIPS) == set(KERNELS)
    for name, expected in SKIPS.items():
        assert (KERNELS[name].skips(False), KERNELS[name].skips(True)) == expected, name


def test_a_window_saves_no_time_under_an_explicit_mask(tmp_path):
    """The order is measured here: a window's mask makes ``sdpa`` compute every pair."""
    windowed = small_model("mistral", tmp_path, sliding_window=64)
    whole = small_model("mistral", tmp_path / "whole", sliding_window=None)
    tokens = {"num_visual": 1000, "num_text": 24, "kernel": "sdpa", "dtype": "float32"}
    window, causal = (trace(make_cell(model=m, **tokens)) for m in (windowed, whole))
    assert window.flops == causal.flops
    assert window.flops_causal < causal.flops_causal
    assert window.flops_skipped == 0 < causal.flops_skipped
    flex = trace(make_cell(model=windowed, **{**tokens, "kernel": "flex"}))
    assert flex.flops_skipped == flex.flops - flex.flops_causal > causal.flops_skipped

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 8, 2048, 64, generator=generator) for _ in range(3))
    mask = KERNELS["sdpa"].mask(2048, 64, q)
    assert KERNELS["sdpa"].mask(2048, None, q) is None
    options = {"causal": {"is_causal": True}, "window": {"attn_mask": mask}}
    spent = {name: [] for name in options}
    for _ in range(8):  # By turns: whatever else the machine does slows both down.
        for name, option in options.items():
            start = time.perf_counter()
            F.scaled_dot_product_attention(q, k, v, **option)
            spent[name].append(time.perf_counter() - start)
    assert min(spent["window"]) > min(spent["causal"])


@pytest.mark.parametrize(
    ("kernel", "system", "dtype", "others"),
    [
        ("flash", "s_attn", "float32", "eager, efficient, flex, math or sdpa"),
        ("cudnn", "s_attn", "float64", "eager, flex, math or sdpa"),
        ("sdpa", "d_attn", "float32", "eager, efficient, flex or math"),
        ("efficient", "d_attn", "float64", "eager, flex or math"),
        ("flash_attention_2", "s_attn", "float32", "eager, efficient, flex, math or sdpa"),
    ],
)
def test_a_card_is_not_predicted_in_a_type_that_its_kernel_does_not_take(
    kernel, system, dtype, others, tmp_path
):
    """On the CPU the same cell runs, where it is a kernel of the CPU as well."""
    model = small_model("mistral", tmp_path)
    cell = make_cell(model=model, kernel=kernel, attention=system, dtype=dtype, num_visual=16)
    record = predict(cell, "h100-80gb")
    assert record.status == "unsupported"
    assert f"on CUDA, not {dtype}; use {others}" in record.error
    assert predict(cell, "cpu").status == "ok"
    assert predict(cell.replace(dtype="bfloat16"), "h100-80gb").status == "ok"
    with pytest.raises(Unsupported, match=f"on CUDA, not {dtype}"):
        predicted_limit(cell, "h100-80gb")


def test_a_refusal_names_the_kernels_that_serve(tmp_path):
    model = small_model("gemma2", tmp_path)
    for system, others in (
        ("s_attn", "eager, flash_attention_2, flash_attention_3 or flex"),
        ("d_attn", "eager, flex or math"),
    ):
        cell = make_cell(model=model, attention=system, num_visual=16)
        with pytest.raises(Unsupported, match=rf"gemma2 needs \(5\); use {others}$"):
            build(cell, "meta")
        for name in others.replace(" or ", ", ").split(", "):
            assert predict(cell.replace(kernel=name), "h100-80gb").status == "ok"
