"""Weights of a layer or a decoder: random ones, or a checkpoint's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from workbench.errors import RequestError
from workbench.lvlm.models import Resolved

BLOCK = 1_000_003
"""Random values drawn before they repeat; a prime, so that no matrix is made of equal rows."""


def materialise(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Replace every meta parameter by an uninitialised one; tied parameters stay tied."""
    made: dict[int, nn.Parameter] = {}
    for child in module.modules():
        for name, old in list(child.named_parameters(recurse=False)):
            if id(old) not in made:
                made[id(old)] = nn.Parameter(torch.empty(old.shape, device=device, dtype=dtype))
            setattr(child, name, made[id(old)])


Made = TypeVar("Made", bound=nn.Module)


def create(make: Callable[[], Made], device: torch.device, dtype: torch.dtype) -> Made:
    """The module that ``make`` builds, uninitialised on that device: nothing is drawn twice."""
    with torch.device("meta"):
        module = make()
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
            block = torch.randn(min(count, BLOCK), device=parameter.device) * std
            if parameter.ndim == 1 and not name.endswith("bias"):
                block = 1 + block
            flat = parameter.view(-1)
            block = block.to(parameter.dtype)
            whole = count // len(block) * len(block)
            flat[:whole].view(-1, len(block)).copy_(block.expand(whole // len(block), -1))
            flat[whole:].copy_(block[: count - whole])


def read_checkpoint(source: str, model: Resolved) -> dict[str, Tensor]:
    """All tensors of a checkpoint by their name inside the text model (``layers.0.…``).

    ``source`` is a hub id or a folder. Raises RequestError for a checkpoint that cannot be read,
    lacks a tensor or holds one of another shape.
    """
    check_source(source)
    try:
        loaded, info = model.family.causal_lm().from_pretrained(
            source, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RequestError(
            f"weights {source!r}: cannot be loaded: {reason}; expected config.json and "
            f"model.safetensors of a {model.config.model_type} model"
        ) from None
    mismatched = sorted(str(m[0] if isinstance(m, tuple) else m) for m in info["mismatched_keys"])
    for problem, names in (("missing", sorted(info["missing_keys"])), ("mis-shaped", mismatched)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise RequestError(
                f"weights {source!r}: {problem} tensor {names[0]}{more}; expected a whole "
                f"{model.config.model_type} checkpoint"
            )
    return {name.split("model.")[-1]: tensor for name, tensor in loaded.state_dict().items()}


def check_source(source: str) -> None:
    """Raise RequestError for a local folder that holds no checkpoint; a hub id is not asked."""
    folder = Path(source)
    local = folder.is_absolute() or source.startswith(".") or folder.exists()
    if not local:
        return
    if not (folder / "config.json").is_file():
        raise RequestError(f"weights {source!r}: not a folder with a config.json")
    if not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        raise RequestError(
            f"weights {source!r}: the folder has no weights; expected model.safetensors"
        )


def copy_layer(tensors: Mapping[str, Tensor], index: int, layer: nn.Module, source: str) -> None:
    """Copy one layer's weights; raises RequestError as ``copy_tensor`` does."""
    for name, parameter in layer.named_parameters():
        copy_tensor(tensors, f"layers.{index}.{name}", parameter, source)


def copy_tensor(tensors: Mapping[str, Tensor], name: str, parameter: Tensor, source: str) -> None:
    """Copy one tensor; raises RequestError where it is missing or of another shape."""
    found = tensors.get(name)
    if found is None:
        raise RequestError(f"weights {source!r}: tensor {name} is missing")
    if found.shape != parameter.shape:
        raise RequestError(
            f"weights {source!r}: tensor {name} is {tuple(found.shape)}, expected "
            f"{tuple(parameter.shape)}"
        )
    with torch.no_grad():
        parameter.copy_(found)
