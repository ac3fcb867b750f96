"""What a family has between embedding and layers, and between layers and final norm."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Family


class Around(nn.Module, ABC):
    """Made without memory; ``settle`` gives its buffers their values.

    B batch, S tokens, D hidden size.
    """

    visual_id = 0
    """The id that stands for a visual row."""

    @abstractmethod
    def settle(self, device: torch.device, dtype: torch.dtype) -> None:
        """Give the buffers their values."""

    @abstractmethod
    def enter(self, sequence: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        """Embeddings [B, S, D] and ids [B, S] of all rows -> the first layer's state."""

    @abstractmethod
    def leave(self, state: Tensor) -> Tensor:
        """The rows of the last layer's state that reach the LM head -> [B, n, D], not normed."""

    @abstractmethod
    def enter_flops(self) -> int:
        """Matmul FLOPs of a token that enters."""

    @abstractmethod
    def leave_flops(self) -> int:
        """Those of a row that leaves."""


class PerLayerEmbeddings(Around):
    """Embeddings of each id for every layer, under the names that a checkpoint has there.

    B batch, S tokens, D hidden size, L layers, P width of an embedding for one layer. ``prefix``
    begins the names of transformers' classes; a subclass has the scales that these read.
    """

    def __init__(self, family: "Family", config: Any, prefix: str) -> None:
        super().__init__()
        self.config = config
        self.hidden_size_per_layer_input = own = config.hidden_size_per_layer_input
        every = config.num_hidden_layers * own
        # Two methods of it read nothing but what stands here.
        self.whole = family.from_transformers(f"{prefix}TextModel")
        embedding = family.from_transformers(f"{prefix}TextScaledWordEmbedding")
        self.embed_tokens_per_layer = embedding(
            config.vocab_size_per_layer_input, every, config.pad_token_id, own**0.5
        )
        self.per_layer_model_projection = nn.Linear(config.hidden_size, every, bias=False)
        norm = family.from_transformers(f"{prefix}RMSNorm")
        self.per_layer_projection_norm = norm(own, eps=config.rms_norm_eps)

    def settle(self, device: torch.device, dtype: torch.dtype) -> None:
        scale = self.hidden_size_per_layer_input**0.5
        self.embed_tokens_per_layer.embed_scale = torch.tensor(scale, device=device, dtype=dtype)

    def enter(self, sequence: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, S, D] and ids [B, S] -> embeddings for layers [B, S, L, P], and the
        first as they are.
        """
        per_layer = self.whole.get_per_layer_inputs(self, ids)
        return self.whole.project_per_layer_inputs(self, sequence, per_layer), sequence

    def leave(self, state: Tensor) -> Tensor:
        return state

    def enter_flops(self) -> int:
        return 2 * self.per_layer_model_projection.weight.numel()

    def leave_flops(self) -> int:
        return 0


def make_around(context: "Context") -> Around | None:
    """What the context's family has there, its weights not set yet; None if nothing."""
    family, config = context.model.family, context.model.config
    if not family.per_layer(config):
        return None
    around = context.create(lambda: family.around(config))
    around.settle(context.device, context.dtype)
    return around
