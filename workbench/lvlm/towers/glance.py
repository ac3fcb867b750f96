"""What a tower attends with in one layer: keys and importance of its tokens, for reducers.

A fused kernel returns neither, so both are computed once more from the layer's input, a few images
at a time and without gradient: they choose tokens and are in no output. The layer is the tower's
last but one, or the last that runs where fewer do.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.lvlm.kernels.eager import wide

KEYS, IMPORTANCE = "keys", "importance"
IMAGES = 8
"""Images whose attention maps exist at a time."""


@dataclass(frozen=True)
class View:
    """The attention of a tower's layer: transformers' module with ``q_proj`` and ``k_proj``."""

    attention: Any
    class_token: int = 0
    """Rows of the tower that are no patches; the first then says what is important."""
    dropped: int = 0
    """Leading rows that are no tokens."""

    @property
    def heads(self) -> tuple[int, int]:
        """Number and size of the heads."""
        return self.attention.num_heads, self.attention.head_dim


class Glance:
    """Keys and importance that one forward of a tower shows."""

    def __init__(self, view: View, needs: Sequence[str]) -> None:
        self.view, self.needs = view, tuple(needs)
        self._seen: Tensor | None = None
        self._open = False
        view.attention.register_forward_pre_hook(self._keep, with_kwargs=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A forward of the tower that is looked at; a recomputation is none."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def _keep(self, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._open:
            hidden: Tensor = args[0] if args else kwargs["hidden_states"]
            self._seen = hidden.detach()

    @torch.no_grad()
    def take(self) -> list[Tensor]:
        """What is needed, in that order: keys [images, N, K], importance [images, N].

        Keys are means over heads. Importance is the attention that a token receives, the mean over
        heads and rows; from the class token alone where there is one.
        """
        assert self._seen is not None, "a forward was looked at"
        hidden, self._seen = self._seen, None
        looked = [self._look(images) for images in hidden.split(IMAGES)]
        del hidden
        return [torch.cat(of_all) for of_all in zip(*looked, strict=True)]

    def _look(self, hidden: Tensor) -> list[Tensor]:
        view, dropped = self.view, self.view.dropped
        keys = view.attention.k_proj(hidden).unflatten(-1, view.heads)
        views = {}
        if KEYS in self.needs:
            views[KEYS] = keys.mean(2)[:, dropped:]
        if IMPORTANCE in self.needs:
            rows = hidden[:, :1] if view.class_token else hidden
            query = view.attention.q_proj(rows).unflatten(-1, view.heads).transpose(1, 2)
            scores = torch.matmul(query, keys.permute(0, 2, 3, 1)) * view.heads[1] ** -0.5
            views[IMPORTANCE] = torch.softmax(wide(scores), -1).mean((1, 2))[:, dropped:]
        return [views[need] for need in self.needs]


def last_but_one(layers: Sequence[Any], running: int | None = None) -> Any:
    """Of a tower's layers, or the last of those that run where that comes before it."""
    at = min(len(layers) - 1, len(layers) if running is None else running)
    return layers[max(0, at - 1)]


def glance_flops(
    needs: Sequence[str], images: int, rows: int, width: int, classed: bool = False
) -> int:
    """Matmul FLOPs of it: of ``rows`` an image, through heads that are ``width`` wide together."""
    if not needs:
        return 0
    asking = (1 if classed else rows) * (IMPORTANCE in needs)
    return images * 2 * width * (rows * width + asking * (width + rows))
