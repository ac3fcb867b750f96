"""The mean of every window, one after another."""

import torch

SETTINGS = None


def reduced(reducer, module, x, grid):
    side = reducer.side
    if grid.rows is None:
        return torch.stack(
            [x[:, i : i + side**2].mean(1) for i in range(0, grid.tokens, side**2)], 1
        )
    image = x.unflatten(1, (grid.rows, grid.columns))
    return torch.stack(
        [
            image[:, r : r + side, c : c + side].flatten(1, 2).mean(1)
            for r in range(0, grid.rows, side)
            for c in range(0, grid.columns, side)
        ],
        1,
    )
