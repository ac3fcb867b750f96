"""Shared by reducers that choose tokens and merge others: indices of every image, no gradient."""

import torch
from torch import Tensor


def split_by(importance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices of the ``count`` most important of [b, N] tokens, and of the others, in order."""
    best = importance.argsort(dim=1, descending=True, stable=True)
    return best[:, :count].sort(1).values, best[:, count:].sort(1).values


def spaced(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``count`` evenly spaced of rows [b, n, …], from the first on, and the others, in order."""
    step = rows.shape[1] // count
    runs = rows[:, : step * count].unflatten(1, (count, step))
    others = torch.cat((runs[:, :, 1:].flatten(1, 2), rows[:, step * count :]), 1)
    return runs[:, :, 0], others


def nearest(keys: Tensor, targets: Tensor) -> Tensor:
    """The target [b, m] that is nearest to each of ``keys`` by cosine.

    ``keys`` are [b, m, K], ``targets`` [b, c, K]; 2·m·c·K FLOPs.
    """
    unit, other = (torch.nn.functional.normalize(x, dim=-1) for x in (keys, targets))
    return torch.matmul(unit, other.transpose(1, 2)).max(-1).indices


def one_hot(chosen: Tensor, count: int, like: Tensor) -> Tensor:
    """[b, m] of ``count`` -> [b, count, m], 1 where a token chose, in the dtype of ``like``."""
    hot = like.new_zeros(chosen.shape[0], count, chosen.shape[1])
    return hot.scatter(1, chosen[:, None], 1.0)


def first_members(groups: Tensor, places: Tensor, empty: Tensor) -> Tensor:
    """The first of ``places`` [b, m] in each of c groups; ``empty`` [b, c] where there is none."""
    beyond = torch.full_like(empty, torch.iinfo(empty.dtype).max)
    first = beyond.scatter_reduce(1, groups, places, "amin")
    return torch.where(first == beyond, empty, first)
