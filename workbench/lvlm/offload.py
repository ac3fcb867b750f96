"""``--offload``: what a checkpointed layer keeps for its backward waits in host memory.

The inputs of each checkpoint are copied out in forward and brought back in backward, one layer
ahead of its use. On CUDA the copies run on a stream of their own, to and from pinned memory; on a
CPU the host is the same memory, and the copies are real ones all the same.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, cuda

TO_HOST, FROM_HOST = "to_host", "from_host"
WATCH: ContextVar[Callable[[str, Tensor], None] | None] = ContextVar("watch", default=None)
"""Told of each copy, by its direction and its result: how a tracer sees what leaves the device."""


class Offload:
    """The traffic of one workload. ``stays`` states of a layer, from the first on, are not moved.

    They are states that every layer shares: taking one layer's away would free nothing. Below 0,
    all stay but so many of the last.
    """

    def __init__(self, device: torch.device, stays: int = 0) -> None:
        self.stays = stays
        self.stream = cuda.Stream(device) if device.type == "cuda" else None
        self.most_bytes = 0
        """The most that has waited on the host at once."""
        self._boundaries: list[weakref.ref[_Boundary]] = []

    @property
    def host_bytes(self) -> int:
        """Bytes that wait on the host now."""
        alive = (ref() for ref in self._boundaries)
        return sum(item.nbytes for boundary in alive if boundary for item in boundary.hosts)

    @contextmanager
    def boundary(self, state: Sequence[Tensor]) -> Iterator[None]:
        """What autograd saves of ``state`` inside is kept on the host.

        A leaf is left where it is: whoever made it holds it on the device anyway.
        """
        self._boundaries = [ref for ref in self._boundaries if ref() is not None]
        before = self._boundaries[-1]() if self._boundaries else None
        boundary = _Boundary(self.stream, before)
        self._boundaries.append(weakref.ref(boundary))
        offloaded = {_storage(t) for t in state[self.stays :] if not t.is_leaf}

        def pack(tensor: Tensor) -> "_Waiting | Tensor":
            return boundary.put(tensor) if _storage(tensor) in offloaded else tensor

        def unpack(kept: "_Waiting | Tensor") -> Tensor:
            return kept if isinstance(kept, Tensor) else kept.boundary.take(kept.number)

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
        self.most_bytes = max(self.most_bytes, self.host_bytes)


class _Waiting(NamedTuple):
    """The place of a tensor that is away."""

    boundary: "_Boundary"
    number: int


class _Boundary:
    """Tensors of one checkpoint on the host, and back on the device once they are asked for."""

    def __init__(self, stream: cuda.Stream | None, before: "_Boundary | None") -> None:
        self.stream, self.before = stream, before
        self.devices: list[torch.device] = []
        self.hosts: list[Tensor] = []
        self.back: dict[int, Tensor] = {}
        self.arrived: cuda.Event | None = None

    def put(self, tensor: Tensor) -> _Waiting:
        self.devices.append(tensor.device)
        self.hosts.append(self._out(tensor))
        _tell(TO_HOST, self.hosts[-1])
        return _Waiting(self, len(self.hosts) - 1)

    def take(self, number: int) -> Tensor:
        """The tensor on its device; the layer before, which is next in backward, is on its way."""
        self.fetch()
        if self.before is not None:
            self.before.fetch()
            self.before = None
        if self.arrived is not None:
            cuda.current_stream(self.devices[number]).wait_event(self.arrived)
        return self.back.pop(number)

    def fetch(self) -> None:
        """Begin to bring back what is away."""
        if self.back:
            return
        for number, host in enumerate(self.hosts):
            self.back[number] = self._in(host, self.devices[number])
            _tell(FROM_HOST, self.back[number])
        if self.stream is not None:
            self.arrived = self.stream.record_event()

    def _out(self, tensor: Tensor) -> Tensor:
        if self.stream is None:
            return tensor.detach().clone()
        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
        self.stream.wait_stream(cuda.current_stream(tensor.device))
        with cuda.stream(self.stream):
            host.copy_(tensor, non_blocking=True)
        # The allocator may give the memory away only when the copy is done.
        tensor.record_stream(self.stream)
        return host

    def _in(self, host: Tensor, device: torch.device) -> Tensor:
        if self.stream is None:
            return host.clone()
        # Made on the stream that computes, whose earlier users of that memory come first.
        tensor = torch.empty_like(host, device=device)
        self.stream.wait_stream(cuda.current_stream(device))
        with cuda.stream(self.stream):
            tensor.copy_(host, non_blocking=True)
        tensor.record_stream(self.stream)
        return tensor


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tell(direction: str, tensor: Tensor) -> None:
    watch = WATCH.get()
    if watch is not None:
        watch(direction, tensor)
