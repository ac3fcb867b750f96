"""Attention of towers within frames or windows of them, those of one size in one call.

transformers runs the attention of every frame (and window) as a call of its own: thousands a layer
for a video. A test holds each tower against transformers' forward.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Windows(NamedTuple):
    """``number`` windows of ``length`` patches, the first at patch ``start`` of a frame."""

    start: int
    number: int
    length: int


class Frames(NamedTuple):
    """Frames that are alike and follow each other: how many, their patches and windows."""

    number: int
    patches: int
    windows: tuple[Windows, ...] = ()


class GroupedAttention(nn.Module):
    """transformers' own vision attention, windows of one size in one call."""

    def __init__(self, inner: Any, frames: list[Frames], whole: bool, module: Any) -> None:
        """``module`` is transformers' of the family, whose functions are called."""
        super().__init__()
        self.inner, self.frames, self.whole, self.module = inner, frames, whole, module

    def forward(
        self, hidden: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: object
    ) -> Tensor:
        """[patches, width] -> [patches, width]; tables are [patches, head size]."""
        q, k, v = self._projected(hidden)
        q, k = self.module.apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        out, start = [], 0
        for run in self.frames:
            rows = slice(start, start + run.number * run.patches)
            of_run = [x[rows].unflatten(0, (run.number, run.patches)) for x in (q, k, v)]
            out.append(torch.cat([*self._attend(run, of_run)], 1).flatten(0, 1))
            start = rows.stop
        projected: Tensor = self.w_o(torch.cat(out).flatten(1))
        return projected

    @property
    def w_o(self) -> Any:
        """The attention's output projection."""
        return self.inner.proj

    def _projected(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values [patches, heads, K], of one matrix or of three.

        Queries and keys are normed where the family has a QK-norm.
        """
        inner, heads = self.inner, self.inner.num_heads
        if hasattr(inner, "qkv"):
            q, k, v = inner.qkv(hidden).unflatten(1, (3, heads, -1)).unbind(1)
        else:
            q, k, v = (getattr(inner, name)(hidden).unflatten(1, (heads, -1)) for name in "qkv")
        return (inner.q_norm(q), inner.k_norm(k), v) if hasattr(inner, "q_norm") else (q, k, v)

    def _attend(self, run: Frames, qkv: list[Tensor]) -> Iterator[Tensor]:
        """The windows of a run of frames: [frames, patches of these windows, heads, K]."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        name, eager = self.inner.config._attn_implementation, self.module.eager_attention_forward
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
        windows = (Windows(0, 1, run.patches),) if self.whole else run.windows
        for start, count, length in windows:
            q, k, v = (
                x[:, start : start + count * length].reshape(-1, length, *x.shape[2:]) for x in qkv
            )
            attended, _ = attend(
                self.inner,
                *(x.transpose(1, 2) for x in (q, k, v)),
                attention_mask=None,
                scaling=self.inner.scaling,
                dropout=0.0,
                is_causal=False,
            )
            yield attended.reshape(run.number, count * length, *attended.shape[2:])
