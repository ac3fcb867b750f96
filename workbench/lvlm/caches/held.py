"""transformers' own cache around one layer's keys and values, for steps that all cost the same."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from workbench.lvlm.caches.narrow import Narrow
from workbench.lvlm.caches.prefill import PrefillCache
from workbench.lvlm.layout import without_first


class HeldCache(DynamicCache):
    """A DynamicCache that forgets each new token, so that no step finds a longer cache.

    An update is transformers' own: the new keys and values are appended by a copy. A sliding
    layer's cache is given the tokens inside its window, as DynamicSlidingWindowLayer keeps them.
    Of a layer in chunks the first ``hidden`` of them are of the chunk before, which transformers
    masks: here no step reads them.
    """

    def __init__(
        self,
        keys: Tensor | Narrow,
        values: Tensor | Narrow,
        hidden: int = 0,
        tokens: int | None = None,
    ) -> None:
        """``tokens`` are all that came before, where they are more than what is held."""
        super().__init__()
        self.hidden, self.tokens = hidden, tokens
        self.held = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """[B, G, 1, K] each -> all keys and values [B, G, n + 1, K]."""
        keys, values = self.held
        if isinstance(keys, Narrow) and isinstance(values, Narrow):
            return (
                keys.without_first(self.hidden).widened(key_states),
                values.without_first(self.hidden).widened(value_states),
            )
        assert isinstance(keys, Tensor), "both are, or neither"
        assert isinstance(values, Tensor), "both are, or neither"
        layer = DynamicLayer()
        layer.keys, layer.values = (without_first(x, self.hidden) for x in (keys, values))
        layer.is_initialized = True
        return layer.update(key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that came before."""
        if self.tokens is not None:
            return self.tokens
        keys = self.held[0]
        return (keys.codes if isinstance(keys, Narrow) else keys).shape[2]


class KeptCache(DynamicCache):
    """One layer's cache in a prefill: transformers' own, made anew in each forward.

    It keeps what ``DynamicCache`` keeps: a copy of all keys and values, of which a sliding layer
    has a view of its window. With a ``cache_dtype`` it keeps codes of the last ``tokens``.
    """

    def __init__(
        self, window: int | None, kept: PrefillCache, cache_dtype: str | None, tokens: int
    ) -> None:
        super().__init__()
        self.window, self.kept = window, kept
        self.cache_dtype, self.tokens = cache_dtype, tokens

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """[B, G, S, K] each -> the same, as they are kept."""
        if self.cache_dtype is not None:
            for x in (key_states, value_states):
                last = x[:, :, max(0, x.shape[2] - self.tokens) :]
                self.kept.keep(*Narrow.of(last, self.cache_dtype))
            return key_states, value_states
        layer = DynamicLayer() if self.window is None else DynamicSlidingWindowLayer(self.window)
        states = layer.update(key_states, value_states)
        self.kept.keep(layer.keys, layer.values)
        return states
