"""Attention kernels by name: for S-Attn's real layer, and for branches merged by log-sum-exp.

Shapes: q [B, H, R, K], k and v [B, G, C, K] (never repeated by the caller), lse [B, H, R] in
float32 or wider.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from workbench.lvlm.layout import Chunk
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.lvlm.parts import LayerParts

KERNELS: "Registry[Kernel]" = Registry("kernel", __name__)
HALVES = ("bfloat16", "float16")
"""The data types of 16 bits, which flash attention takes on CUDA and no others (flash_api.cpp)."""


@dataclass(frozen=True)
class Branch:
    """Queries, keys and values of one softmax branch."""

    q: "Tensor"
    k: "Tensor"
    v: "Tensor"
    region: str = "attention"
    """What computing it is called: which rows meet which keys, ``T2V``."""


@dataclass(frozen=True)
class Prefix:
    """Rows ``start:stop`` of the queries see the first ``length`` keys of the other stream."""

    start: int
    stop: int
    length: int


@dataclass(frozen=True)
class Scores:
    """How scores are formed: times ``scale``, soft-capped, kept inside a window of positions."""

    scale: float
    softcap: float | None = None
    window: int | None = None
    rows: "Tensor | None" = None
    """Positions of the query rows, int64 [R]; only read under a window."""
    other: "Tensor | None" = None
    """Positions of the other stream's keys; None where the window does not apply to it."""
    causal: bool = True
    """Whether own rows and own keys are the same tokens; False for a row against a cache."""
    made: dict[object, Any] = field(default_factory=dict, compare=False)
    """What a kernel makes once from these scores (block masks)."""


@dataclass(frozen=True)
class Band:
    """Keys that a row sees beside its own window: the last ``recent``, itself among them, and the
    first ``sinks`` of the sequence."""

    recent: int
    sinks: int


def _choice(names: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


class Kernel:
    """One way of computing attention."""

    name: str
    hf: str
    """transformers' word for it (``attn_implementation``)."""
    dense_mask = False
    """Whether the real layer must be handed an explicit causal mask."""
    takes_mask = True
    """Whether the real layer can be handed any mask."""
    takes_rows = False
    """Whether it has ``masked``: rows that do not follow each other."""
    under_dispatch = True
    """Whether it runs under a dispatch mode, by which a measurement sees its operators."""

    two_widths = False
    """Whether heads of values may be of another width than those of queries and keys."""

    widest: int | None = None
    """The widest head that it takes on CUDA."""
    dtypes: tuple[str, ...] = ()
    """The data types that it takes on CUDA; empty where it takes all."""
    limits_whole = True
    """Whether these two are also limits of S-Attn's real layer, or of branches alone."""

    temporaries_from = ""
    """What ``temporaries`` counts, and whose source says so, for the record of a prediction."""

    def implementation(self, traced: bool) -> str:
        """What the real layer's configuration is given as ``attn_implementation``.

        ``traced`` says that tensors are shapes only, for a prediction.
        """
        return self.hf

    def traced_as(self) -> str | None:
        """One sentence where a prediction does not trace this kernel's own operators."""
        return None

    def skips(self, windowed: bool) -> bool:
        """Whether pairs that the mask hides are not computed.

        ``windowed`` says that a window hides pairs which causality shows. A fused kernel knows
        causality; a window is handed to it as an explicit mask, under which torch's
        ``scaled_dot_product_attention`` computes every pair, hidden by causality or by the window.
        """
        return not windowed

    def temporaries(
        self, grad: "Tensor", q: "Tensor", k: "Tensor", out: "Tensor"
    ) -> tuple[int, ...]:
        """Bytes of what one fused backward allocates on CUDA beside its inputs and gradients.

        grad, q and out [B, H, R, K], k [B, G, C, K]. Empty for a kernel of plain operators, whose
        every tensor a prediction sees. The forwards' are small and left out (method.md).
        """
        return ()

    def mask(
        self, tokens: int, window: int | None, like: "Tensor", band: Band | None = None
    ) -> Any:
        """The causal mask that the real layer is handed, or None where none is needed.

        Additive in the dtype of ``like`` for eager, as transformers makes it, boolean for SDPA:
        [1, 1, S, S].
        """
        if not self.dense_mask and window is None and band is None:
            return None
        allowed = torch.ones(tokens, tokens, dtype=torch.bool, device=like.device).tril_()
        if isinstance(window, Chunk):
            chunks = torch.arange(tokens, device=like.device) // int(window)
            allowed &= chunks[:, None] == chunks
        elif window is not None:
            allowed = allowed.triu_(1 - window)
        if band is not None:
            near = torch.ones_like(allowed).triu_(1 - band.recent)
            near[:, : band.sinks] = True
            allowed &= near
        if self.dense_mask:
            mask = torch.zeros(tokens, tokens, dtype=like.dtype, device=like.device)
            allowed = mask.masked_fill_(~allowed, torch.finfo(like.dtype).min)
        return allowed[None, None]

    def check(self, parts: "LayerParts", decomposed: bool, window_bites: bool) -> None:
        """Raise Unsupported with the kernels that serve the layer, where this one does not."""
        try:
            self.refuse(parts, decomposed, window_bites)
            self.check_widths(parts)
        except Unsupported as error:
            asked = parts, decomposed, window_bites
            others = [name for name in sorted(KERNELS) if KERNELS[name].serves(*asked)]
            raise Unsupported(f"{error}; use {_choice(others)}") from None

    def serves(self, parts: "LayerParts", decomposed: bool, window_bites: bool) -> bool:
        """Whether it can run the layer, as far as shapes alone decide."""
        try:
            self.refuse(parts, decomposed, window_bites)
            self.check_widths(parts)
        except Unsupported:
            return False
        return True

    def refuse(self, parts: "LayerParts", decomposed: bool, window_bites: bool) -> None:
        """Raise Unsupported, naming kernel and feature, where it cannot serve the layer.

        ``window_bites`` says whether the layer's window hides a pair that causality shows.
        """
        if self.widest is not None and parts.head_dim > self.widest:
            raise Unsupported(
                f"kernel {self.name!r} takes heads of up to {self.widest} on CUDA, and those of "
                f"{parts.attention.config.model_type} are {parts.head_dim} wide"
            )

    def check_on_card(self, dtype: str, decomposed: bool) -> None:
        """Raise Unsupported where CUDA has no such kernel for a data type."""
        if self.takes(dtype, decomposed):
            return
        others = [name for name in sorted(KERNELS) if KERNELS[name].takes(dtype, decomposed)]
        raise Unsupported(
            f"kernel {self.name!r} takes {' and '.join(self.dtypes)} on CUDA, not {dtype}; use "
            f"{_choice(others)}"
        )

    def takes(self, dtype: str, decomposed: bool) -> bool:
        """Whether CUDA has this kernel for a data type, as far as that alone decides."""
        limited = decomposed or self.limits_whole
        return not (limited and self.dtypes and dtype not in self.dtypes)

    def check_widths(self, parts: "LayerParts") -> None:
        """Raise Unsupported where it does not take heads of two widths, and the layer has them."""
        if parts.value_dim != parts.head_dim and not self.two_widths:
            raise Unsupported(
                f"kernel {self.name!r}: heads of {parts.attention.config.model_type} are "
                f"{parts.head_dim} wide for queries and keys and {parts.value_dim} for values, "
                "of which no form is modelled"
            )

    def require(self, parts: "LayerParts", decomposed: bool, like: "Tensor", train: bool) -> None:
        """Raise Unsupported where the device of ``like`` refuses its dtype or the layer's heads.

        Never called for a prediction, which is made for another device.
        """

    def context(self) -> AbstractContextManager[object]:
        """Entered around whole iterations, so that recomputation meets the same kernel."""
        return nullcontext()

    def own(self, branch: Branch, scores: Scores) -> "Tensor":
        """Attention of a stream to itself, causal where ``scores`` says so: [B, H, R, K]."""
        raise NotImplementedError

    def masked(self, branch: Branch, seen: "Tensor", scores: Scores) -> "Tensor":
        """Attention of any rows to the keys that ``seen`` shows them: [B, H, R, K].

        ``seen`` is boolean, [R, C] or with leading dimensions; no row of it is empty. All pairs
        are computed. Only where ``takes_rows``.
        """
        raise NotImplementedError

    def cross(self, branch: Branch, prefixes: Sequence[Prefix], scores: Scores) -> "Tensor":
        """Attention to prefixes of the other stream; rows that see nothing are 0."""
        raise NotImplementedError

    def merged(
        self, own: Branch, other: Branch, prefixes: Sequence[Prefix], scores: Scores
    ) -> "Tensor":
        """One softmax over own (causal) and the visible prefix of other: eq. 4 to 9."""
        raise NotImplementedError
