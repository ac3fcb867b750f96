"""Tracing on torch's own fake tensors: the oracle of ``workbench.probe.counting.shapes``."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch._subclasses import FakeTensorMode


@contextmanager
def fake_tensors() -> Iterator[str]:
    """Fake CPU tensors inside; yields the device to build on."""
    with FakeTensorMode():
        yield "cpu"
