"""``math``: torch's unfused attention, which keeps the probabilities of every pair."""

import warnings
from contextlib import AbstractContextManager

from torch import Tensor, cuda
from torch.nn.attention import SDPBackend, sdpa_kernel

from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.kernels.chosen import refusal, small_heads, try_sdpa
from workbench.lvlm.kernels.eager import Eager
from workbench.lvlm.kernels.modelled import MATH, register
from workbench.lvlm.parts import LayerParts
from workbench.vocabulary.errors import Unsupported


class Math(Eager):
    """S-Attn through SDPA's math back end; the branches of other systems as plain matmuls."""

    name = "math"
    hf = "sdpa"
    dense_mask = False

    def implementation(self, traced: bool) -> str:
        if not traced:
            return self.hf
        register()
        return MATH

    def context(self) -> AbstractContextManager[object]:
        return sdpa_kernel(SDPBackend.MATH)

    def refuse(self, parts: LayerParts, decomposed: bool, window_bites: bool) -> None:
        if parts.softcap is not None and not decomposed:
            raise Unsupported(
                f"kernel 'math' has no soft-capping of scores, which "
                f"{parts.attention.config.model_type} needs ({parts.softcap:g})"
            )

    def require(self, parts: LayerParts, decomposed: bool, like: Tensor, train: bool) -> None:
        if decomposed:
            return
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                try_sdpa(SDPBackend.MATH, *small_heads(parts, like, train, True), train)
            except cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise refusal("math", like, error, warned) from None


KERNELS.add("math", Math())
