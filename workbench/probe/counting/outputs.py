"""What operators return on the ``meta`` device, remembered by what they were given.

Many of torch's own rules for shapes are Python and take a third of a millisecond; the layers of a
decoder ask the same ones again. A test holds every answer against torch's own.
"""

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

META = torch.device("meta")
MOST = 20_000
"""Answers that are remembered; a trace asks for some hundred different ones."""


class _Like(NamedTuple):
    """What a fresh tensor is told by."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def made(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=META)


class Outputs:
    """Runs operators; one that was run on the like before is not run again.

    Of more than MOST different ones all are forgotten.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, list[_Like] | _Like] = {}

    def of(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``func(*args, **kwargs)``, or fresh tensors like what it returned before."""
        if func.is_view or func._schema.is_mutable:
            return func(*args, **kwargs)
        try:
            key = func, _signature(args), _signature(tuple(kwargs.items())) if kwargs else ()
            outputs = self._known.get(key)
        except TypeError:  # Something that has no hash, such as a generator of random numbers.
            return func(*args, **kwargs)
        if outputs is not None:
            return (
                outputs.made() if isinstance(outputs, _Like) else tuple(k.made() for k in outputs)
            )
        inputs = tensors_in((args, *kwargs.values()))
        if _is_pointwise(func) and _even(inputs, kwargs):
            even = _pointwise(func, inputs, args, kwargs)
            if even is not None:
                self._remember(key, even)
                return even.made()
        out = _grouped(func, args, kwargs) if func in GROUPED else func(*args, **kwargs)
        like = _fresh(out, inputs)
        if like is not None:
            self._remember(key, like)
        return out

    def _remember(self, key: Hashable, outputs: list[_Like] | _Like) -> None:
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[key] = outputs


GROUPED = (torch.ops.aten._grouped_mm.default,)


def _grouped(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The output of a grouped matmul, whose rule for shapes knows bfloat16 alone.

    The operator itself takes float32 and float16 as well, on the CPU and on cards.
    """
    left, right, *others = args
    narrow = [x.to(torch.bfloat16) for x in (left, right)]
    out: Tensor = func(*narrow, *others, **kwargs)
    return torch.empty_strided(out.shape, out.stride(), dtype=left.dtype, device=out.device)


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of an operator's arguments or outputs: alone, or in lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    tensors: list[Tensor] = []
    if isinstance(value, (list, tuple)):
        for each in value:
            if isinstance(each, Tensor):
                tensors.append(each)
            elif isinstance(each, (list, tuple)):
                tensors += tensors_in(each)
    return tensors


def _signature(value: Any) -> Hashable:
    """What an operator can see of an argument."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, (list, tuple)):
        return tuple([_signature(each) for each in value])
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


def _pointwise(
    func: Any, given: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Like | None:
    """The contiguous output of a pointwise operator; None where torch has to say what is wrong."""
    shape = _broadcast([tensor.shape for tensor in given])
    if shape is None:
        return None
    stride, step = [], 1
    for size in reversed(shape):
        stride.append(step)
        step *= size or 1
    dtype = _dtype(func, _kind(args), _kind(tuple(kwargs.items())))
    return _Like(shape, (*reversed(stride),), dtype)


@lru_cache(maxsize=4096)
def _is_pointwise(func: Any) -> bool:
    """Whether each number of its one output depends on one number of each input."""
    return torch.Tag.pointwise in func.tags and len(func._schema.returns) == 1


def _even(given: list[Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether a pointwise operator returns a contiguous tensor: where all of its inputs are."""
    return (
        bool(given)
        and "memory_format" not in kwargs
        and all(type(t) is Tensor and t.device == META and _is_plain(t) for t in given)
    )


def _is_plain(tensor: Tensor) -> bool:
    """Contiguous, also by the stride of a dimension of one element, which no number depends on."""
    step = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if stride != step:
            return False
        step *= size or 1
    return True


def _broadcast(shapes: list[torch.Size]) -> tuple[int, ...] | None:
    """The shape of a pointwise operator's output; None where torch has to say what is wrong."""
    sizes = [1] * max(map(len, shapes))
    for shape in shapes:
        for place, size in enumerate(shape, len(sizes) - len(shape)):
            if sizes[place] == 1:
                sizes[place] = size
            elif size not in (1, sizes[place]):
                return None
    return tuple(sizes)


class _Kind(NamedTuple):
    """What the data type of a pointwise output depends on."""

    dtype: torch.dtype
    has_size: bool
    """A tensor of no dimension counts as a number."""


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Kind(value.dtype, value.ndim > 0)
    if isinstance(value, (list, tuple)):
        return tuple(map(_kind, value))
    return type(value), value


@lru_cache(maxsize=4096)
def _dtype(func: Any, args: tuple[Any, ...], kwargs: tuple[Any, ...]) -> torch.dtype:
    """Asked of torch once, with tensors of one element."""
    out = func(*map(_stand_in, args), **{name: _stand_in(kind) for (_, name), kind in kwargs})
    assert isinstance(out, Tensor), "a pointwise operator returns one tensor"
    return out.dtype


def _stand_in(kind: Any) -> Any:
    if isinstance(kind, _Kind):
        return torch.empty((1,) if kind.has_size else (), dtype=kind.dtype, device=META)
    return kind[1]
