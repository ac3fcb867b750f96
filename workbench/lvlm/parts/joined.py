"""Queries, keys and values of one matrix, each as the projection that systems ask a layer for.

The matrix stays the layer's own: transformers' layer multiplies with all of it at once, a system
that needs only some of the three with their rows alone.
"""

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from workbench.vocabulary.errors import Unsupported


class Share(nn.Module):
    """Some rows of the matrix ``qkv_proj`` of an attention module, looked up at every use."""

    def __init__(self, attention: Any, first: int, last: int) -> None:
        super().__init__()
        self.of = [attention]  # No child: the matrix is counted where it is.
        self.rows = slice(first, last)
        self.out_features = last - first

    @property
    def whole(self) -> Any:
        """The layer's projection of all three."""
        return self.of[0].qkv_proj

    @property
    def weight(self) -> Tensor:
        """Its rows [out, in]."""
        rows: Tensor = self.whole.weight[self.rows]
        return rows

    @property
    def bias(self) -> Tensor | None:
        """Their biases [out]; None where there are none."""
        return None if self.whole.bias is None else self.whole.bias[self.rows]

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The whole matrix, in which a gradient of these rows lies."""
        parameters: Iterator[nn.Parameter] = self.whole.parameters(recurse)
        return parameters

    def forward(self, x: Tensor) -> Tensor:
        """[…, in] -> […, out]; Unsupported for a matrix in codes or with an adapter beside it."""
        if type(self.whole) is not nn.Linear:
            raise Unsupported(
                "this attention system reads queries, keys and values apart, and of a matrix of "
                "all three in codes of fewer bits or under an adapter no part is read alone; use "
                "s_attn, or adapters elsewhere (lora targets=o_proj)"
            )
        return F.linear(x, self.weight, self.bias)


def share_out(attention: Any, queries: int, keys: int) -> None:
    """Give an attention module ``q_proj``, ``k_proj`` and ``v_proj`` of its ``qkv_proj``.

    ``queries`` and ``keys`` are the widths of all heads. The three are none of its children.
    """
    first = 0
    for name, width in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        object.__setattr__(attention, name, Share(attention, first, first + width))
        first += width
