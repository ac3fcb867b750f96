"""Every system on every family against its definition, forward and gradients, in float64."""

import pytest
import torch

from tests.lvlm import oracle
from tests.lvlm.definitions import assert_refused, definition, settings_of
from tests.lvlm.scaled import scaled_parts
from tests.small import FAMILY_NAMES, LAYER_SYSTEMS, OWN, small_model
from workbench.lvlm.attention.s_attn import SAttnLayer
from workbench.lvlm.build import build
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported

TOLERANCE = 1e-9
LAYOUTS = ("V,T", "T,V,T", "V,T,V,T")


def relative(found, expected):
    assert torch.isfinite(found).all()
    return ((found - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def small_workload(family, folder, system, kernel, **fields):
    cell = make_cell(
        model=small_model(family, folder),
        attention=system,
        kernel=kernel,
        **{
            "dtype": "float64",
            "settings": settings_of(system),
            "pass": "train",
            "batch": 2,
            "num_visual": 33,
            "num_text": 9,
            **fields,
        },
    )
    workload = build(cell)
    oracle.widen_norms(workload.module)
    open_gates(workload.module)
    return workload


def open_gates(module):
    """Give every gate a value: those that are 0 at the start would hide what they let through."""
    for name, parameter in module.named_parameters():
        if name.endswith("gate"):
            torch.nn.init.normal_(parameter)


def oracle_outputs(workload):
    """The definition's outputs for the workload's own inputs: (sequence) or (visual, text)."""
    workload = scaled_parts(workload)
    (parts, _, _), *_ = workload.layers
    context, name = workload.context, workload.system.name
    defined = definition(name)
    if defined is not None:
        return defined.outputs(workload)
    index = context.model.global_layer if workload.cell.layer is None else workload.cell.layer
    if name in ("s_attn", "d_attn_full", "d_attn_biased"):
        seen = oracle.visibility(context.layout, parts.window, name == "d_attn_biased")
        inputs = workload.inputs
        sequence = inputs[0] if name == "s_attn" else context.layout.join(*inputs)
        with oracle.seated(parts, context.layout):
            out = oracle.masked_layer(parts, sequence, seen, context.rope(index, "sequence"))
        return (out,) if name == "s_attn" else context.layout.split(out)
    module = getattr(workload.module, "inner", workload.module)
    return oracle.decomposed_layer(
        name, module, parts, context.layout, workload.inputs, context.rope(index, "text")
    )


def assert_equal_to_oracle(workload, tolerance=TOLERANCE):
    """Outputs and gradients of inputs and weights, by relative norm."""
    with workload.guard():
        outputs = workload.run_forward()
        workload.run_backward(outputs)
    leaves = [x for x in (*workload.inputs, *workload.module.parameters()) if x.requires_grad]
    found = [x.grad for x in leaves]
    expected = oracle_outputs(workload)
    for out, want in zip(outputs, expected, strict=True):
        assert relative(out, want) <= tolerance
    used = [(o, g) for o, g in zip(expected, workload.upstream, strict=True) if o.requires_grad]
    gradients = torch.autograd.grad(
        [o for o, _ in used], leaves, [g for _, g in used], allow_unused=True
    )
    largest = max(g.norm().item() for g in gradients if g is not None)
    for got, want in zip(found, gradients, strict=True):
        if want is None or want.norm() <= 1e-12 * largest:
            # A softmax over a single key has gradient 0, up to cancellation.
            assert got is None or got.norm() <= 1e-12 * largest
        else:
            assert got is not None
            assert relative(got, want) <= tolerance


def runs_real_layers(workload):
    """Whether transformers' own attention runs, whose eager softmax is float32."""
    return isinstance(getattr(workload.module, "inner", workload.module), SAttnLayer)


LAYERS = {"llama4": (0, 1, 3)}
"""In chunks, with one MLP or with experts, and without RoPE."""
KINDS_OF_LAYERS = [
    (family, layer)
    for family in FAMILY_NAMES
    for layer in LAYERS.get(family, (0, 1) if OWN[family].get("sliding_window") else (1,))
]
"""A layer of each kind: of the families with windows every other layer has one, of the rest all
layers are one module with other weights."""


@pytest.mark.parametrize(("family", "layer"), KINDS_OF_LAYERS)
@pytest.mark.parametrize("system", LAYER_SYSTEMS)
def test_every_system_on_every_family(family, system, layer, tmp_path):
    # Eager S-Attn is transformers' own, whose softmax is float32: sdpa is exact where it serves.
    for kernel in ("eager", "sdpa"):
        try:
            workload = small_workload(family, tmp_path, system, kernel, layer=layer)
        except Unsupported as error:
            if kernel == "sdpa" and family.startswith(("gemma", "cohere2", "exaone4", "llama4")):
                continue  # No soft-cap, and no window or chunk over two streams.
            assert_refused(error, system, family)
            continue
        eager_softmax = runs_real_layers(workload) and kernel == "eager"
        assert_equal_to_oracle(workload, 1e-5 if eager_softmax else TOLERANCE)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "llama4"])
@pytest.mark.parametrize("system", LAYER_SYSTEMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("visual", "text", "batch"), [(63, 7, 1), (0, 5, 3), (5, 1, 2), (1, 4, 1)]
)
def test_layouts_and_odd_lengths(family, system, layout, visual, text, batch, tmp_path):
    kernel = "sdpa" if family == "mistral" else "eager"
    fields = {"num_visual": visual, "num_text": text, "batch": batch, "layer": 0}
    try:
        workload = small_workload(family, tmp_path, system, kernel, layout=layout, **fields)
    except Unsupported as error:
        assert_refused(error, system, family)
        return
    eager_softmax = runs_real_layers(workload) and kernel == "eager"
    assert_equal_to_oracle(workload, 1e-5 if eager_softmax else TOLERANCE)


@pytest.mark.parametrize("options", [{"fold": True}, {"chunk": 7}, {"fold": True, "chunk": 32}])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_options_are_exact(family, options, tmp_path):
    assert_equal_to_oracle(small_workload(family, tmp_path, "d_attn", "eager", **options))


def test_what_a_system_adds_is_trained_in_chunks(tmp_path):
    assert_equal_to_oracle(small_workload("mistral", tmp_path, "d_attn_cascade", "eager", chunk=7))


def test_checkpointing_changes_no_number(tmp_path):
    assert_equal_to_oracle(small_workload("mistral", tmp_path, "d_attn", "sdpa", checkpoint=True))


@pytest.mark.parametrize("system", ["d_attn", "d_attn_biased", "d_attn_full"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_fast_kernels_in_working_precision(system, dtype, tolerance, tmp_path):
    """The same random inputs in a lower precision, against float64."""
    exact = small_workload("mistral", tmp_path, system, "sdpa", num_visual=129, num_text=17)
    low = build(exact.cell.replace(dtype=dtype))
    for a, b in zip(low.held(), exact.held(), strict=True):
        if a.is_floating_point():
            b.data.copy_(a.data.double())
    with torch.no_grad():
        for found, wanted in zip(low.forward(), exact.forward(), strict=True):
            assert relative(found.double(), wanted) <= tolerance
