"""What is claimed of the systems as a whole: equalities, and what their kernels never make."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.lvlm import oracle
from tests.lvlm.definitions import settings_of
from tests.lvlm.test_decode import Recorder
from tests.lvlm.test_oracles import relative
from tests.lvlm.test_weights import cell_of, write
from tests.small import FAMILY_NAMES, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.decomposed import Decomposed
from workbench.lvlm.attention.grouped import Grouped
from workbench.lvlm.build import build
from workbench.probe.counting.flops import MATMULS
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell

LINEAR = sorted(
    name
    for name, system in SYSTEMS.items()
    if isinstance(system, Decomposed) and not isinstance(system, Grouped)
)
"""Systems in which no visual row has a query."""


def small_cell(family, folder, **fields):
    return make_cell(
        model=small_model(family, folder),
        dtype="float64",
        settings=settings_of(str(fields.get("attention"))),
        **{"kernel": "eager", "num_visual": 33, "num_text": 9, "batch": 2, **fields},
    )


WINDOWED = ("gemma", "cohere2", "exaone4", "llama4")
"""Families for which sdpa has no form over two streams."""


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_d_attn_full_equals_s_attn_on_whole_models(family, tmp_path):
    """Loss and every gradient; transformers' eager softmax is float32, its sdpa is not."""
    kernel, tolerance = ("eager", 1e-5) if family.startswith(WINDOWED) else ("sdpa", 1e-9)
    fields = {"scope": "decoder", "pass": "train", "kernel": kernel, "layout": "T,V,T"}
    one = build(small_cell(family, tmp_path, **fields))
    other = build(small_cell(family, tmp_path, attention="d_attn_full", **fields))
    other.module.load_state_dict(one.module.state_dict())
    for a, b in zip(one.inputs, other.inputs, strict=True):
        b.data.copy_(a.data)
    for workload in (one, other):
        oracle.widen_norms(workload.module)
        workload.run_backward(workload.run_forward())
    ours = dict(other.module.named_parameters())
    for name, parameter in one.module.named_parameters():
        if parameter.grad.norm() > 1e-9:  # A key's bias shifts all scores alike: 0 but for noise.
            assert relative(ours[name].grad, parameter.grad) <= 10 * tolerance
    assert relative(other.inputs[0].grad, one.inputs[0].grad) <= tolerance


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("system", ["s_attn", "d_attn", "himix"])
def test_without_visual_tokens_it_is_the_plain_language_model(family, system, tmp_path):
    folder, model = write(family, tmp_path)
    workload = build(cell_of(folder, system, num_visual=0, num_text=7))
    with torch.no_grad():
        expected = model(input_ids=workload.inputs[1]).logits
    (found,) = workload.run_forward()
    assert relative(found, expected) <= 1e-5


class Shapes(TorchDispatchMode):
    """Queries and keys of every fused attention that runs, forward and backward."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        matmuls = MATMULS.get(func.overloadpacket)
        if matmuls is not None:
            first = 1 if matmuls == 5 else 0
            self.seen.append((args[first].shape, args[first + 1].shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("system", LINEAR)
def test_fused_kernels_get_plain_heads(system, tmp_path):
    """No doubled head size and no repeated keys: 4 query heads over 2, of size 8."""
    workload = build(
        small_cell("mistral", tmp_path, attention=system, kernel="sdpa", **{"pass": "train"})
    )
    shapes = Shapes()
    with shapes:
        workload.step()
    assert shapes.seen
    for query, key in shapes.seen:
        assert (query[0], query[1], query[3]) == (2, 4, 8)
        assert (key[0], key[1], key[3]) == (2, 2, 8)
        assert query[2] == 9
        assert key[2] in (9, 33)


@pytest.mark.parametrize("system", LINEAR)
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_memory_grows_in_proportion_to_the_tokens(system, pass_, tmp_path):
    """Equal steps of |V| add equal bytes: nothing of size |V| × |V|."""
    cell = small_cell("mistral", tmp_path, attention=system, kernel="sdpa", **{"pass": pass_})
    first, second, third = (
        trace(cell.replace(num_visual=1000 * n)).timeline.peak()[0] for n in (1, 2, 3)
    )
    assert third - second == second - first > 0


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_the_visual_cache_is_neither_rotated_nor_repeated(family, tmp_path):
    cell = small_cell(family, tmp_path, attention="d_attn")
    workload = build(cell)
    layer, parts = workload.module, workload.layers[0][0]
    layer.kernel = Recorder(layer.kernel)
    with torch.no_grad():
        workload.run_forward()
        visual, text = (parts.input_norm(x) for x in workload.inputs)
        seen = layer.kernel.branches
        assert torch.equal(seen["visual"].k, parts.key(visual))
        assert torch.equal(seen["visual"].v, parts.value(visual))
        rotated = parts.rope(parts.key(text), *layer.text_tables)
        assert torch.equal(seen["text"].k, rotated)
        assert not torch.equal(seen["text"].k, parts.key(text))
    held = build(cell.replace(**{"pass": "decode"})).module
    groups, size = parts.num_kv_heads, parts.head_dim
    for name in ("keys", "values"):
        assert getattr(held, f"visual_{name}").shape == (2, groups, 33, size)
        assert getattr(held, f"text_{name}").shape == (2, groups, 9, size)
