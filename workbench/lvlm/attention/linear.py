"""Layers without query-key pairs between those that an attention system changes, as released.

Of Gated DeltaNet queries, keys and values pass a short causal convolution and the gated delta rule
(``parts/delta_rule.py``), whose state is all that a decode step reads; LFM2's has a convolution
alone (``attention/short_conv.py``). No system changes such a layer. It runs on the whole sequence,
which a decomposed system's two streams make.

On a GPU where flash-linear-attention (and causal-conv1d) is installed the rule (the convolution)
is its fused form; elsewhere, and in every prediction, torch's operators. A record's
``details.forms`` says which ran.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.attention import System, system_of
from workbench.lvlm.attention.costs import Cached, Pairs
from workbench.lvlm.context import Context
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layout import Layout
from workbench.lvlm.parts.delta_rule import CHUNK, chunked, step, wide
from workbench.lvlm.parts.marks import region, unmasked
from workbench.lvlm.parts.pairless import Linear, ShortConv
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts

ROLE = "linear"
"""The role of such a layer's place, under every system."""
PAIRLESS = ("linear_attention", "conv")
"""transformers' words for such layers."""
RULE = "gated delta rule"
CONVOLUTION = "causal convolution"
FUSED = {
    RULE: ("fla", "fla.ops.gated_delta_rule", "flash-linear-attention"),
    CONVOLUTION: ("causal_conv1d", "causal_conv1d", "causal-conv1d"),
}
"""Of each computation: the package to look for, the module, and its distribution's name."""
PLAIN = {
    RULE: f"torch's operators, in chunks of {CHUNK} tokens or a token at a time",
    CONVOLUTION: "torch's conv1d",
}


def fused(context: Context, computed: str, name: str) -> Callable[..., Any] | None:
    """The fused function ``name`` for what is computed, where there is one; notes which runs."""
    if tracing(context.device):
        return None
    package, module, distribution = FUSED[computed]
    if context.device.type != "cuda":
        reason = f"{distribution} needs a CUDA device"
    elif context.dtype == torch.float64 or (computed == RULE and context.dtype == torch.float32):
        dtype = str(context.dtype).removeprefix("torch.")
        reason = f"{distribution} does not take {dtype}"
    elif find_spec(package) is None:
        reason = f"{distribution} is not installed"
    else:
        kernel: Callable[..., Any] = getattr(import_module(module), name)
        context.forms[computed] = form = f"{distribution}'s {name}"
        context.flag(f"{computed}: ran as {form}; FLOPs are counted of torch's form")
        return kernel
    context.forms[computed] = f"{PLAIN[computed]}: {reason}"
    return None


class DeltaNet:
    """The computation of a layer's own ``linear_attn``: projections, convolution, rule, norm."""

    def __init__(self, parts: "LayerParts", context: Context) -> None:
        assert isinstance(parts.linear, Linear), "a linear layer"
        self.own, self.sizes = parts.attention, parts.linear
        decode = context.cell.pass_ == "decode"
        rule = "fused_recurrent_gated_delta_rule" if decode else "chunk_gated_delta_rule"
        self.rule = fused(context, RULE, rule)
        self.convolution = None if decode else fused(context, CONVOLUTION, "causal_conv1d_fn")

    def prefill(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normed rows [B, S, D] -> [B, S, D], and the states that a decode step takes."""
        mixed = self._mixed(x)
        with region("attention"):
            rows = self._convolved(mixed, mixed.shape[2])
            q, k, v, g, beta = self._arguments(x, rows)
            if self.rule is not None:
                out, state = self._fused(q, k, v, g, beta, None)
            else:
                with unmasked():
                    out, state = chunked(q, k, v, g, beta)
        return self._finished(x, out), mixed, state

    def decode(self, x: Tensor, tail: Tensor, state: Tensor) -> Tensor:
        """One normed row [B, 1, D]; both states are replaced in place by those after it.

        ``tail`` [B, M, taps] is what enters the convolution of the last tokens, ``state``
        [B, H, K, W].
        """
        mixed = torch.cat((tail[:, :, 1:], self._mixed(x)), 2)
        tail.copy_(mixed)
        with region("attention"):
            rows = F.silu(F.conv1d(mixed, self.own.conv1d.weight, groups=self.sizes.mixed))
            q, k, v, g, beta = self._arguments(x, rows)
            if self.rule is not None:
                out, after = self._fused(q, k, v, g, beta, state)
            else:
                with unmasked():
                    out, after = step(q, k, v, g, beta, state)
        state.copy_(after)
        return self._finished(x, out)

    def _mixed(self, x: Tensor) -> Tensor:
        with region("projections"):
            mixed: Tensor = self.own.in_proj_qkv(x).transpose(1, 2)
        return mixed

    def _convolved(self, mixed: Tensor, tokens: int) -> Tensor:
        """A causal convolution a channel, and silu: [B, M, S] -> [B, M, S]."""
        weight = self.own.conv1d.weight
        if self.convolution is not None:
            convolved: Tensor = self.convolution(mixed, weight.squeeze(1), None, activation="silu")
            return convolved
        before = self.sizes.taps - 1
        rows = F.conv1d(mixed, weight, padding=before, groups=self.sizes.mixed)
        return F.silu(rows[:, :, :tokens])

    def _arguments(self, x: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """What the rule takes: q and k [B, S, G, K], v [B, S, H, W], g and beta [B, S, H]."""
        own, sizes = self.own, self.sizes
        keys = sizes.key_heads * sizes.key_size
        q, k, v = rows.transpose(1, 2).split((keys, keys, sizes.value_width), -1)
        with region("projections"):
            b, a = own.in_proj_b(x), own.in_proj_a(x)
        # As narrow as float16 its exponential would overflow.
        float_ = wide(x.dtype)
        g = -own.A_log.to(float_).exp() * F.softplus(a.to(float_) + own.dt_bias)
        by_key = (sizes.key_heads, sizes.key_size)
        heads = v.unflatten(-1, (sizes.value_heads, sizes.value_size))
        return q.unflatten(-1, by_key), k.unflatten(-1, by_key), heads, g, b.sigmoid()

    def _fused(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        assert self.rule is not None
        times = self.sizes.value_heads // self.sizes.key_heads
        if times > 1:  # Not every release takes fewer heads of keys than of values.
            q, k = q.repeat_interleave(times, 2), k.repeat_interleave(times, 2)
        out, after = self.rule(
            q,
            k,
            v,
            g=g,
            beta=beta,
            initial_state=state,
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
        return out, after

    def _finished(self, x: Tensor, out: Tensor) -> Tensor:
        """The norm of each head, gated by z, and the output projection."""
        with region("projections"):
            z = self.own.in_proj_z(x)
        with region("norms"):
            size = self.sizes.value_size
            out = self.own.norm(out.reshape(-1, size), z.reshape(-1, size)).view(z.shape)
        with region("projections"):
            projected: Tensor = self.own.out_proj(out)
        return projected


class PairlessLayer(nn.Module):
    """The real layer over the whole sequence, whatever state the system has between layers."""

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__()
        self.layer = parts.layer
        self.parts = context.in_tiles(parts)
        self.layout: Layout | None = place.layout if system.decomposed else None
        self.kept = context.kept_cache()
        self.decode = context.cell.pass_ == "decode"

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        """The system's state -> the same; the token alone [B, 1, D] in a decode step."""
        if self.decode:
            (token,) = state
            return (self.parts.finish(token, self.step(self.parts.input_norm(token))),)
        sequence = state[0] if self.layout is None else self.layout.join(*state)
        attended = self.prefill(self.parts.input_norm(sequence))
        sequence = self.parts.finish(sequence, attended)
        return (sequence,) if self.layout is None else self.layout.split(sequence)

    def prefill(self, x: Tensor) -> Tensor:
        """Normed rows [B, S, D] -> [B, S, D]; keeps what a decode step takes, where that is asked
        for.
        """
        raise NotImplementedError

    def step(self, x: Tensor) -> Tensor:
        """One normed row [B, 1, D] -> [B, 1, D]; what was kept is replaced in place."""
        raise NotImplementedError


class LinearLayer(PairlessLayer):
    """Gated DeltaNet."""

    tail: Tensor
    state: Tensor

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        self.delta = DeltaNet(parts, context)
        if self.decode:
            sizes, batch = self.delta.sizes, context.cell.batch
            tail = context.random((batch, sizes.mixed, sizes.taps))
            shape = batch, sizes.value_heads, sizes.key_size, sizes.value_size
            state = context.random(shape).to(wide(context.dtype))
            self.register_buffer("tail", tail, persistent=False)
            self.register_buffer("state", state, persistent=False)

    def prefill(self, x: Tensor) -> Tensor:
        attended, mixed, last = self.delta.prefill(x)
        if self.kept is not None:
            self.kept.keep(last_tokens(mixed, self.delta.sizes.taps), last)
        return attended

    def step(self, x: Tensor) -> Tensor:
        return self.delta.decode(x, self.tail, self.state)


def last_tokens(rows: Tensor, taps: int) -> Tensor:
    """What a convolution takes of the last tokens of [B, M, S]: a copy, zeros before the first."""
    return F.pad(rows[:, :, -taps:], (max(0, taps - rows.shape[2]), 0)).clone()


class Mixing(System):
    """Costs of a system on a model that has linear layers: theirs, and the system's elsewhere.

    ``system_on`` puts it before a system's own class.
    """

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        return tuple(
            replace(place, role=ROLE) if is_linear(model, place.index) else place
            for place in super().places(model, cell, layout)
        )

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        from workbench.lvlm.attention.short_conv import ShortConvLayer

        if place.role != ROLE:
            return super().layer(parts, context, place)
        kind = ShortConvLayer if isinstance(parts.linear, ShortConv) else LinearLayer
        return kind(self, parts, context, place)

    def refuse(self, parts: "LayerParts", place: Place, window_bites: bool) -> None:
        if place.role != ROLE:
            super().refuse(parts, place, window_bites)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        return Pairs(0, 0) if place.role == ROLE else super().pairs(place, window)

    def pairs_by_branch(self, place: Place, window: int | None) -> dict[str, Pairs] | None:
        return None if place.role == ROLE else super().pairs_by_branch(place, window)

    def pairs_by_stream(self, place: Place, window: int | None) -> dict[str, Pairs] | None:
        return None if place.role == ROLE else super().pairs_by_stream(place, window)

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        if place.role != ROLE:
            return super().linear_flops(parts, place, cell)
        assert parts.linear is not None
        tokens, cached = place.layout.length, cell.cache
        return cell.batch * (tokens * _projections(parts) + parts.linear.flops(tokens, cached))

    def weightless_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> tuple[int, int]:
        if place.role != ROLE:
            return super().weightless_flops(parts, place, cell)
        assert parts.linear is not None
        products, solved = parts.linear.weightless(place.layout.length)
        # Beside the products a triangular system has one like it in its backward, and a product.
        return cell.batch * (products + solved), cell.batch * (2 * products + 3 * solved)

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        return 0 if place.role == ROLE else super().extra_parameters(parts, place)

    def cached(self, place: Place, window: int | None) -> Cached:
        return Cached(0, 0) if place.role == ROLE else super().cached(place, window)

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        if place.role != ROLE:
            return super().token_flops(parts, place, cached)
        assert parts.linear is not None
        return _projections(parts) + parts.linear.step_flops

    def decode_pairs(self, place: Place, cached: Cached) -> int:
        return 0 if place.role == ROLE else super().decode_pairs(place, cached)

    def cache_bytes(self, parts: "LayerParts", place: Place, cell: Cell, item: int) -> int:
        if place.role != ROLE:
            return super().cache_bytes(parts, place, cell, item)
        assert parts.linear is not None
        return cell.batch * parts.linear.cache_bytes(item)


def _projections(parts: "LayerParts") -> int:
    """Matmul FLOPs of a token in the projections and the MLP of such a layer."""
    assert parts.linear is not None
    return 2 * (parts.hidden_size * parts.linear.columns + parts.mlp_elements)


def is_linear(model: "Resolved", index: int) -> bool:
    """Whether the model's layer of that index has no query-key pairs."""
    return model.layer_type(index) in PAIRLESS


def has_linear(model: "Resolved") -> bool:
    """Whether any of its layers is."""
    return any(is_linear(model, index) for index in range(model.config.num_hidden_layers))


def system_on(cell: Cell, model: "Resolved") -> System:
    """The system that a cell names, on its model: one that mixes with linear layers where the
    model has such, and the system itself elsewhere.
    """
    system = system_of(cell, model)
    if not system.mixes or not has_linear(model):
        return system
    mixing = copy(system)
    kind = type(system)
    mixing.__class__ = type(f"Mixing{kind.__name__}", (Mixing, kind), {})
    return mixing
