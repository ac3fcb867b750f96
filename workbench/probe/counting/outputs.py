"""What operators return on the ``meta`` device, remembered by what they were given.

Many of torch's own rules for shapes are Python and take a third of a millisecond; the layers of a
decoder ask the same ones again. A test holds every answer against torch's own.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

META = torch.device("meta")


class _Like(NamedTuple):
    """What a fresh tensor is told by."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def made(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=META)


class Outputs:
    """Runs operators; one that was run on the like before is not run again."""

    def __init__(self) -> None:
        self._known: dict[Hashable, list[_Like] | _Like] = {}

    def of(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``func(*args, **kwargs)``, or fresh tensors like what it returned before."""
        if func.is_view or func._schema.is_mutable:
            return func(*args, **kwargs)
        given: list[Tensor] = []
        try:
            key = (func, _told(args, given), _told(tuple(kwargs.items()), given))
            known = self._known.get(key)
        except TypeError:  # Something that has no hash, such as a generator of random numbers.
            return func(*args, **kwargs)
        if known is not None:
            return known.made() if isinstance(known, _Like) else tuple(k.made() for k in known)
        out = func(*args, **kwargs)
        like = _fresh(out, given)
        if like is not None:
            self._known[key] = like
        return out


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of an operator's arguments or outputs: alone, or in lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for each in value for tensor in tensors_in(each)]
    return []


def _told(value: Any, given: list[Tensor]) -> Hashable:
    """What an operator can see of an argument; tensors are added to ``given``."""
    if isinstance(value, Tensor):
        given.append(value)
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, (list, tuple)):
        return tuple(_told(each, given) for each in value)
    # 1, 1.0 and True are equal, and give other data types.
    return type(value), value


def _fresh(out: Any, given: list[Tensor]) -> list[_Like] | _Like | None:
    """What tells the outputs; None where they are more than that, such as a part of an input."""
    if isinstance(out, tuple):
        each = [like for one in out if isinstance(like := _fresh(one, given), _Like)]
        return each if len(each) == len(out) else None
    if type(out) is not Tensor or out.device != META:
        return None
    like = _Like(tuple(out.shape), out.stride(), out.dtype)
    storage, inputs = out.untyped_storage(), {t.untyped_storage()._cdata for t in given}
    same_size = storage.nbytes() == like.made().untyped_storage().nbytes()
    return like if same_size and storage._cdata not in inputs else None
