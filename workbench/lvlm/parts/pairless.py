"""Sizes of layers without query-key pairs, and what these cost in closed form.

FLOPs are of a forward of one sample: 2·m·n·k a matmul, 2·taps a value that a convolution gives; a
triangular system of C rows with m right sides is C²·m. ``attention/linear.py`` runs the layers.
"""

from typing import NamedTuple

import torch

from workbench.lvlm.parts.delta_rule import CHUNK

STATE = torch.float32.itemsize
"""Bytes of an element of the delta rule's state, whatever the cell's dtype up to float32."""


class Linear(NamedTuple):
    """Gated DeltaNet (arXiv 2412.06464): a convolution, and a state a head."""

    key_heads: int
    """Of queries and of keys; each serves as many heads of values."""
    value_heads: int
    key_size: int
    value_size: int
    taps: int
    """Tokens that its convolution sees, the last one included."""

    @property
    def mixed(self) -> int:
        """Width of queries, keys and values together: what the convolution runs over."""
        return 2 * self.key_heads * self.key_size + self.value_width

    @property
    def value_width(self) -> int:
        """Width of the values of all heads."""
        return self.value_heads * self.value_size

    @property
    def state(self) -> int:
        """Elements of the state of all heads."""
        return self.value_heads * self.key_size * self.value_size

    @property
    def columns(self) -> int:
        """Widths of its projections, in and out, together."""
        return self.mixed + 2 * self.value_width + 2 * self.value_heads

    def flops(self, tokens: int, cached: bool) -> int:
        """Of the convolution and of the rule over a sequence, whole chunks."""
        convolution = 2 * (tokens + self.taps - 1) * self.taps * self.mixed
        return convolution + sum(self.weightless(tokens))

    def weightless(self, tokens: int) -> tuple[int, int]:
        """Of the rule, which has no weights: of products, and of triangular systems."""
        rows = -(-tokens // CHUNK) * CHUNK * self.value_heads
        key, value = self.key_size, self.value_size
        within = 2 * (2 * key + value) * CHUNK  # k·k, q·k, and scores times updates.
        state = 3 * 2 * key * value  # Read by updates and by queries, written once.
        return rows * (within + state), rows * CHUNK * (key + value)

    @property
    def step_flops(self) -> int:
        """Of a decoded token in the convolution and the rule."""
        return 2 * self.taps * self.mixed + 3 * 2 * self.state

    def cache_bytes(self, item: int) -> int:
        """What a decode step of one sample takes, in elements of ``item`` bytes and its state."""
        return item * self.mixed * self.taps + max(STATE, item) * self.state


class ShortConv(NamedTuple):
    """A gated convolution over a few tokens, channel by channel (LFM2)."""

    width: int
    taps: int
    """Tokens that it sees, the last one included."""

    @property
    def columns(self) -> int:
        """Widths of its projections, in and out, together."""
        return 4 * self.width

    def flops(self, tokens: int, cached: bool) -> int:
        """Of the convolution, whose input a prefill that keeps it pads to its taps."""
        tokens = max(tokens, self.taps) if cached else tokens
        return 2 * (tokens + self.taps - 1) * self.taps * self.width

    def weightless(self, tokens: int) -> tuple[int, int]:
        """None of them are between activations alone."""
        return 0, 0

    @property
    def step_flops(self) -> int:
        """Of a decoded token: the convolution runs over all that is kept, too, for two values."""
        return 2 * 2 * self.taps * self.width

    def cache_bytes(self, item: int) -> int:
        """What a decode step of one sample takes, in elements of ``item`` bytes."""
        return item * self.width * self.taps
