"""A Protocol: how a cell is measured."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from workbench.vocabulary.fields import Layers, Request, Whole, bytes_of, make_model


class Protocol(Request):
    """How a cell is measured. Not part of its key: it changes how sure a number is, no more."""

    min_samples: Annotated[int, Field(ge=1, le=10_000, strict=True), Whole] = 10
    max_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """From the first warm iteration on."""
    max_prepare: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """Seconds that compilation, autotuning and plans may take before the first warm iteration."""
    precision: Annotated[float, Field(gt=0, lt=1)] | None = 0.01
    """Relative 95 % half-width of the median to reach; None takes ``min_samples`` and no more."""
    memory_limit: Annotated[
        Annotated[int, Field(ge=1, strict=True)] | None, BeforeValidator(bytes_of)
    ] = None
    """Bytes that the worker may allocate beyond what it holds once its imports are done."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    """Wall time after which a silent worker is ended and the cell recorded as ``timeout``."""
    iterations: Annotated[int, Field(ge=1, le=10_000, strict=True), Whole] | None = None
    """Run so many and no more, from the first on, whatever the rest asks: does the cell fit?"""
    emulate: Layers | None = None
    """Emulate one ZeRO-3 rank of the cell on one device: all layers run, or so many of them."""
    graph: bool | None = None
    """Replay a CUDA graph of the iteration too; None: of forward and decode cells under 20 ms."""


def make_protocol(**fields: Any) -> Protocol:
    """A Protocol; RequestError has a line for each wrong value."""
    return make_model(Protocol, fields)
