"""The tokens of every window, one after another, side by side."""

import torch

SETTINGS = "side=2"


def reduced(reducer, module, x, grid):
    side, image = reducer.side, x.unflatten(1, (grid.rows, grid.columns))
    return torch.stack(
        [
            torch.cat([image[:, r + i, c + j] for i in range(side) for j in range(side)], -1)
            for r in range(0, grid.rows, side)
            for c in range(0, grid.columns, side)
        ],
        1,
    )
