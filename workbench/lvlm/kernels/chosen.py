"""Shared by the SDPA back ends that are chosen by name: torch may use that one and no other."""

import warnings
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, cuda
from torch.nn.attention import SDPBackend, sdpa_kernel

from workbench.lvlm.kernels.fused import Fused
from workbench.lvlm.kernels.modelled import sentence
from workbench.lvlm.layout import word_of
from workbench.lvlm.parts import LayerParts
from workbench.vocabulary.errors import Unsupported

ROWS = 8
"""Tokens of the call that asks torch whether a back end serves a layer."""


class Chosen(Fused):
    """A back end of ``scaled_dot_product_attention`` and its own operator for the branches."""

    hf = "sdpa"
    choice: SDPBackend
    takes_mask = False
    native_gqa = True
    on_cpu = False
    """Whether a CPU can run (and so trace) it."""

    def traced_as(self) -> str | None:
        return None if self.on_cpu else sentence(self.name)

    def context(self) -> AbstractContextManager[object]:
        # A prediction never asks torch to choose: its operators are named.
        return sdpa_kernel(self.choice)

    def refuse(self, parts: LayerParts, decomposed: bool, window_bites: bool) -> None:
        super().refuse(parts, decomposed, window_bites)
        if window_bites and not self.takes_mask:
            raise Unsupported(
                f"kernel {self.name!r} takes no mask, which the {word_of(parts.window)} of "
                f"{parts.attention.config.model_type} needs ({parts.window} tokens)"
            )

    def require(self, parts: LayerParts, decomposed: bool, like: Tensor, train: bool) -> None:
        q, k, v = small_heads(parts, like, train, self.native_gqa)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                if decomposed:
                    self._try_operator(q, k, v, parts.scale, train)
                else:
                    try_sdpa(self.choice, q, k, v, train)
            except cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise refusal(self.name, like, error, warned) from None

    def _try_operator(self, q: Tensor, k: Tensor, v: Tensor, scale: float, train: bool) -> None:
        backend = self.backend(q)
        with torch.no_grad():
            out, lse, saved = backend.forward(q, k, v, True, scale)
            if train:
                backend.backward(out, q, k, v, out, lse, saved, True, scale)


def small_heads(
    parts: LayerParts, like: Tensor, train: bool, native_gqa: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's q, k and v for a few tokens: zeros of the dtype and on the device of ``like``."""
    shared = parts.num_kv_heads if native_gqa else parts.num_heads
    q, k, v = (
        like.new_zeros(1, heads, ROWS, parts.head_dim).requires_grad_(train)
        for heads in (parts.num_heads, shared, shared)
    )
    return q, k, v


def try_sdpa(choice: SDPBackend, q: Tensor, k: Tensor, v: Tensor, train: bool) -> None:
    """Call the public function with one back end allowed; raises torch's RuntimeError."""
    with sdpa_kernel(choice):
        gqa = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa)
        if train:
            out.backward(out.detach())


def refusal(
    name: str, like: Tensor, error: RuntimeError, warned: list[warnings.WarningMessage]
) -> Unsupported:
    """Torch's refusal in one line: its warnings hold the reasons, where it gave any."""
    reasons = [str(warning.message).split(" (Triggered")[0].strip() for warning in warned]
    first = str(error).strip().splitlines()[0].split(". ")[0]
    why = "; ".join(dict.fromkeys(reasons)) or first
    return Unsupported(f"kernel {name!r} is refused on {like.device.type} in {like.dtype}: {why}")
