"""The device as every cell finds it: nothing of an earlier cell is held, kept or compiled."""

import gc
import sys
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import cuda


def clear_card(place: str) -> None:
    """Give back what earlier cells of this process left, so that a cell's bytes are its own.

    Unreachable tensors, the caching allocator's free segments and cuBLAS's workspaces (32 MiB each
    on Hopper, allocated anew where they are needed). Compiled code goes too: torch.compile would
    take up a function that it has met in another size with sizes left open, which is other code
    than a fresh process compiles.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    if place == "cpu":
        return
    gc.collect()
    with on_card(place):
        cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()
        cuda.empty_cache()


def on_card(place: str) -> AbstractContextManager[object]:
    """``place`` as torch's current device: events and streams without a name are those of it."""
    return nullcontext() if place == "cpu" else cuda.device(torch.device(place))
