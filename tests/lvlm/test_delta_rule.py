"""The gated delta rule: chunks and steps are the recurrence, and transformers' own functions."""

import pytest
import torch

from tests.lvlm.definitions.delta_rule import recurrence
from workbench.lvlm.parts.delta_rule import CHUNK, chunked, step
from workbench.lvlm.parts.marks import unmasked_by
from workbench.probe.counting.allocator import HOST
from workbench.probe.counting.shapes import shapes_only
from workbench.probe.counting.tallies import tally, total
from workbench.probe.counting.tracker import Timeline, Tracker

TOLERANCE = 1e-9


def arguments(tokens, keys=2, heads=4, size=8, width=12, batch=2, dtype=torch.float64, **made):
    """Queries, keys, values, decays and rates, as a layer makes them."""
    torch.manual_seed(tokens)
    q, k = (torch.randn(batch, tokens, keys, size, dtype=dtype, **made) for _ in range(2))
    v = torch.randn(batch, tokens, heads, width, dtype=dtype, **made)
    g, beta = (torch.randn(batch, tokens, heads, dtype=dtype, **made) for _ in range(2))
    found = [q, k, v, -torch.nn.functional.softplus(g), beta.sigmoid()]
    return [x.detach().requires_grad_(True) for x in found]


@pytest.mark.parametrize("tokens", [1, 63, CHUNK, 130])
@pytest.mark.parametrize("heads", [2, 4])
def test_chunks_are_the_recurrence(tokens, heads):
    given = arguments(tokens, heads=heads)
    found, wanted = chunked(*given), recurrence(*given)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=TOLERANCE)
    seeds = [torch.randn_like(x) for x in wanted]
    ours = torch.autograd.grad(found, given, seeds)
    theirs = torch.autograd.grad(wanted, given, seeds)
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=TOLERANCE)


def test_its_backward_is_that_of_finite_differences():
    given = arguments(70, keys=1, heads=1, size=2, width=2, batch=1)
    assert torch.autograd.gradcheck(lambda *x: chunked(*x), given, fast_mode=True)


@pytest.mark.parametrize("tokens", [1, 20])
def test_steps_are_the_recurrence(tokens):
    with torch.no_grad():
        given = arguments(tokens)
        wanted, last = recurrence(*given)
        state = torch.zeros_like(last)
        rows = []
        for at in range(tokens):
            row, state = step(*(x[:, at : at + 1] for x in given), state)
            rows.append(row)
    torch.testing.assert_close(torch.cat(rows, 1), wanted, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(state, last, atol=TOLERANCE, rtol=TOLERANCE)


def theirs(name):
    from workbench.lvlm.models import FAMILIES

    return FAMILIES["qwen3_5"].from_transformers(f"torch_{name}_gated_delta_rule")


@pytest.mark.parametrize("tokens", [1, 63, 130])
def test_both_forms_are_transformers_own(tokens):
    given = arguments(tokens, dtype=torch.float32)
    more = {"output_final_state": True, "use_qk_l2norm_in_kernel": True}
    named = dict(zip(("query", "key", "value", "g", "beta"), given, strict=True))
    wanted = theirs("chunk")(**named, **more)
    for got, want in zip(chunked(*given), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        first = {name: x[:, :1] for name, x in named.items()}
        out, after = theirs("recurrent")(**first, initial_state=wanted[1], **more)
        ours = step(*first.values(), wanted[1])
    torch.testing.assert_close(ours[0], out, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[1], after, atol=1e-5, rtol=1e-5)


def counted(compute, tokens, train):
    """FLOPs and peak of a function of the arguments, on shapes."""
    with shapes_only() as device:
        tracker = Tracker(HOST)
        with torch.device(device), tracker:
            given = arguments(tokens, dtype=torch.float32, batch=1)
        tracker.begin()
        tracker.hold({"inputs": given})
        with unmasked_by(tracker.unmasked), tracker, torch.set_grad_enabled(train):
            out = compute(*given)
            if train:
                out.backward(torch.empty_like(out))
            del out
        timeline = Timeline(tracker.blocks, tracker.calls, -1)
    return total(tally(tracker.calls)), timeline.peak()[0]


@pytest.mark.parametrize("tokens", [64, 300])
def test_a_forward_costs_what_transformers_own_does(tokens):
    named = ("query", "key", "value", "g", "beta")

    def reference(*given):
        named_ = dict(zip(named, given, strict=True))
        return theirs("chunk")(**named_, use_qk_l2norm_in_kernel=True)[0]

    ours, own = (
        counted(compute, tokens, False) for compute in (lambda *x: chunked(*x)[0], reference)
    )
    assert ours[0] == own[0] > 0
    assert ours[1] == pytest.approx(own[1], rel=0.03)


def test_a_backward_costs_what_autograd_s_does_but_for_both_ends():
    """The state before the first chunk and the gradient after the last are zeros: two products
    more at either end than autograd has.
    """

    def reference(q, k, v, g, beta):
        return theirs("chunk")(q, k, v, g, beta, use_qk_l2norm_in_kernel=True)[0]

    ours, own = (
        counted(compute, 300, True)[0] for compute in (lambda *x: chunked(*x)[0], reference)
    )
    assert ours - own == 4 * (2 * CHUNK * 8 * 12) * 4


def test_half_precision_is_computed_wide():
    given = arguments(70, dtype=torch.float64)
    narrow = [x.detach().to(torch.bfloat16) for x in given]
    out, state = chunked(*narrow)
    assert out.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    wanted, _ = recurrence(*(x.double() for x in narrow))
    assert (out.double() - wanted).norm() / wanted.norm() < 5e-3
