"""Attention kernels by name: for S-Attn's real layer, and for branches merged by log-sum-exp.

Shapes: q [B, H, R, K], k and v [B, G, C, K] (never repeated by the caller), lse [B, H, R] in
float32 or wider.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.lvlm.parts import LayerParts

KERNELS: "Registry[Kernel]" = Registry("kernel", __name__)


@dataclass(frozen=True)
class Branch:
    """Queries, keys and values of one softmax branch."""

    q: "Tensor"
    k: "Tensor"
    v: "Tensor"


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


class Kernel:
    """One way of computing attention. Backward FLOPs per pair follow ``backward_matmuls``."""

    name: str
    hf: str
    """transformers' word for it (``attn_implementation``)."""
    dense_mask = False
    """Whether the real layer must be handed an explicit causal mask."""
    backward_matmuls = 5
    """Matmuls of a backward: 4 with stored probabilities, 5 where a kernel recomputes them."""

    def refuse(self, parts: "LayerParts", pairs_masked_by_window: bool) -> None:
        """Raise Unsupported, naming kernel and feature, where it cannot serve the layer."""

    def context(self) -> AbstractContextManager[object]:
        """Entered around whole iterations, so that recomputation meets the same kernel."""
        return nullcontext()

    def own(self, branch: Branch, scores: Scores) -> "Tensor":
        """Causal attention of a stream to itself; R == C. Returns [B, H, R, K]."""
        raise NotImplementedError

    def cross(self, branch: Branch, prefixes: Sequence[Prefix], scores: Scores) -> "Tensor":
        """Attention to prefixes of the other stream; rows that see nothing are 0."""
        raise NotImplementedError

    def merged(
        self, own: Branch, other: Branch, prefixes: Sequence[Prefix], scores: Scores
    ) -> "Tensor":
        """One softmax over own (causal) and the visible prefix of other: eq. 4 to 9."""
        raise NotImplementedError
