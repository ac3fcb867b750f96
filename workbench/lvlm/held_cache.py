"""transformers' own cache around one layer's keys and values, for steps that all cost the same."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class HeldCache(DynamicCache):
    """A DynamicCache that forgets each new token, so that no step finds a longer cache.

    An update is transformers' own: the new keys and values are appended by a copy. A sliding
    layer's cache is given the tokens inside its window, as DynamicSlidingWindowLayer keeps them.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.held = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """[B, G, 1, K] each -> all keys and values [B, G, n + 1, K]."""
        layer = DynamicLayer()
        layer.keys, layer.values = self.held
        layer.is_initialized = True
        return layer.update(key_states, value_states)
