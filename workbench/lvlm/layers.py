"""Real layers at their places, with weights, and what a kernel or system refuses of them."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import System
from workbench.lvlm.attention.linear import has_linear
from workbench.lvlm.context import Context
from workbench.lvlm.models import Resolved
from workbench.lvlm.offload import Offload
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.marks import recomputation
from workbench.lvlm.place import Place
from workbench.lvlm.weights.random import randomise
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Unsupported


def parts_of(
    model: Resolved, layer: nn.Module, place: Place, system: System, context: Context
) -> LayerParts:
    """The parts of the layer at a place, once the kernel has agreed to serve it."""
    parts = model.family.parts(layer)
    # A decode step's cache holds only what its token sees: there is nothing left to mask.
    decode = context.cell.pass_ == "decode"
    bites = system.window_bites(place, parts.window)
    check_mixing(model, parts, system, context.cell)
    system.refuse(parts, place, bites)
    if parts.linear is None:
        context.kernel.check(parts, system.decomposed, bites and not decode)
        context.require(parts, system.decomposed)
    grouped = parts.experts is not None and not parts.experts.every
    if grouped and context.dtype == torch.float64:
        raise Unsupported(
            f"dtype float64: the experts of {model.config.model_type} are one call of "
            "torch's grouped matmul, which takes float32, bfloat16 and float16"
        )
    extra = not place.inserted and system.extra_parameters(parts, place)
    if extra and context.checkpoint() is not None:
        context.flag(f"weights: random in what {system.name} adds to a layer")
    return parts


def check_mixing(model: Resolved, parts: LayerParts, system: System, cell: Cell) -> None:
    """Raise Unsupported where a system or an option has no form for gates, linear layers, an
    MLP beside the attention, norms behind RoPE or a second router.
    """
    family = model.config.model_type
    if model.family.modal and cell.experts_skew:
        raise Unsupported(
            f"experts_skew: {family} has two routers a layer, of visual rows and of text; rows of "
            "each are spread evenly alone"
        )
    if model.family.modal and not system.modal:
        raise Unsupported(
            f"{system.name}: {family} has experts for visual rows and others for text, and "
            f"{system.name} has no form for rows of one kind alone; use s_attn or d_attn"
        )
    if parts.norms_turned and not system.norms_turned:
        raise Unsupported(
            f"{system.name}: {family} norms queries and keys after RoPE, which {system.name} has "
            "no form for; use s_attn or d_attn"
        )
    if parts.parallel and system.between:
        raise Unsupported(
            f"{system.name}: attention and MLP of {family} read the same rows side by side, which "
            f"leaves no place between them for what {system.name} puts there"
        )
    if (parts.gated or has_linear(model)) and not system.mixes:
        convolving = "conv" in model.config.layer_types
        raise Unsupported(
            f"{system.name}: most layers of {family} are gated convolutions, without query-key "
            f"pairs; {system.name} has no form for them"
            if convolving
            else f"{system.name}: most layers of {family} are linear, without query-key pairs, "
            f"and the others gate their output; {system.name} has no form for either"
        )
    if parts.gated and cell.fold:
        raise Unsupported(
            f"fold: {family} gates the output of each query head, which leaves no columns of W_o "
            "to sum"
        )


def make_layer(model: Resolved, place: Place, context: Context) -> nn.Module:
    """The real layer of a place on the context's device and dtype, with random or loaded weights.

    A checkpoint has no layer of the system's own: those stay random, and a flag says so.
    """
    layer = context.create(lambda: model.family.layer(model.config, place.index))
    model.family.settle(layer, context.device, context.dtype)
    checkpoint = context.checkpoint()
    if checkpoint is None or place.inserted:
        randomise(layer)
        if context.cell.experts_skew:
            _send_alike(model.family.router(layer))
        if checkpoint is not None:
            context.flag("weights: random in the layers that the attention system inserts")
    else:
        checkpoint.fill(f"layers.{place.index}.", layer)
    return layer.train(context.cell.pass_ == "train")


def _send_alike(router: Any) -> None:
    """Have a layer's router prefer the same experts whatever it reads: all scores are equal."""
    if router is not None:
        with torch.no_grad():
            router.weight.zero_()


def random_tensor(shape: tuple[int, ...], context: Context, grad: bool = False) -> Tensor:
    """Standard normal values of the context's dtype, repeating after BLOCK of them."""
    return context.random(shape).requires_grad_(grad)


class Checkpointed(nn.Module):
    """A module whose activations are recomputed in backward (torch's non-reentrant form).

    Its inputs, which are kept for that, wait on the host where there is an ``offload``.
    """

    def __init__(self, inner: nn.Module, offload: Offload | None = None) -> None:
        super().__init__()
        self.inner, self.offload = inner, offload

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        if not torch.is_grad_enabled():
            return self.inner(*state)
        with nullcontext() if self.offload is None else self.offload.boundary(state):
            return torch.utils.checkpoint.checkpoint(
                self.inner,
                *state,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=recomputation(),
            )
