"""Modules made without drawing their values twice, and random values for them."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

BLOCK = 1_000_003
"""Random values drawn before they repeat; a prime, so that no matrix is made of equal rows."""

WITHOUT_MEMORY: ContextVar[bool] = ContextVar("without_memory", default=False)
"""Whether a module is being made that has no memory on any device: only its shapes are wanted."""


def materialise(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Replace every meta parameter by an uninitialised one; tied parameters stay tied."""
    parameters: dict[int, nn.Parameter] = {}
    for child in module.modules():
        for name, old in child._parameters.items():
            if old is not None and id(old) not in parameters:
                parameters[id(old)] = nn.Parameter(
                    torch.empty(old.shape, device=device, dtype=dtype)
                )
            if old is not None:
                child._parameters[name] = parameters[id(old)]


Made = TypeVar("Made", bound=nn.Module)


class _SkipInit(TorchFunctionMode):
    """Leaves out torch's initialisers (``torch.nn.init``): a meta tensor has no values to set."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def create(make: Callable[[], Made], device: torch.device, dtype: torch.dtype) -> Made:
    """The module that ``make`` builds, uninitialised on that device: nothing is drawn twice."""
    before = WITHOUT_MEMORY.set(True)
    try:
        with torch.device("meta"), _SkipInit():
            module = make()
    finally:
        WITHOUT_MEMORY.reset(before)
    materialise(module, device, dtype)
    return module


def randomise(module: nn.Module, std: float = 0.02) -> None:
    """Fill every parameter in place: matrices with N(0, std²), norms near 1, biases near 0.

    Values repeat after a prime number of draws: drawing 218 million of them would take longer than
    the measurement.
    """
    for name, parameter in module.named_parameters():
        count = parameter.numel()
        with torch.no_grad():
            if parameter.is_meta:
                # There is nothing to fill; what filling allocates counts in a prediction.
                size, dtype = min(count, BLOCK), parameter.dtype
                with torch._C.DisableTorchFunction():  # The device is named: no mode has a say.
                    block, scaled = (torch.empty(size, device="meta") for _ in range(2))
                    _ = block, scaled, torch.empty(size, dtype=dtype, device="meta")
                continue
            block = torch.randn(min(count, BLOCK), device=parameter.device) * std
            if parameter.ndim == 1 and not name.endswith("bias"):
                block = 1 + block
            flat = parameter.view(-1)
            block = block.to(parameter.dtype)
            whole = count // len(block) * len(block)
            flat[:whole].view(-1, len(block)).copy_(block.expand(whole // len(block), -1))
            flat[whole:].copy_(block[: count - whole])
