"""What a family has between embedding and layers, and between layers and final norm."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class Around(nn.Module, ABC):
    """Made without memory; ``settle`` gives its buffers their values.

    B batch, S tokens, D hidden size.
    """

    @abstractmethod
    def settle(self, device: torch.device, dtype: torch.dtype) -> None:
        """Give the buffers their values."""

    @abstractmethod
    def enter(self, sequence: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        """Embeddings [B, S, D] and ids [B, S], 0 for visual rows -> the first layer's state."""

    @abstractmethod
    def leave(self, state: Tensor) -> Tensor:
        """The rows of the last layer's state that reach the LM head -> [B, n, D], not normed."""

    @abstractmethod
    def enter_flops(self) -> int:
        """Matmul FLOPs of a token that enters."""

    @abstractmethod
    def leave_flops(self) -> int:
        """Those of a row that leaves."""


def make_around(context: "Context") -> Around | None:
    """What the context's family has there, its weights not set yet; None if nothing."""
    family, config = context.model.family, context.model.config
    if not family.altup:
        return None
    around = context.create(lambda: family.around(config))
    around.settle(context.device, context.dtype)
    return around
