"""Which component of a model runs, tower, adapter, decoder or layers, head; seconds of each."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from torch import Tensor, cuda, nn

from workbench.lvlm.workload import Workload

Switch = Callable[[str], None]
"""Told the name of the component that runs from now on."""


@contextmanager
def components_named(workload: Workload, switch: Switch) -> Iterator[None]:
    """Tower, adapter and decoder: by module in forward, by their outputs' gradients after."""
    handles = []
    for name, module in workload.modules.items():
        if name == "decoder":
            continue

        def enter(_module: nn.Module, _inputs: Any, name: str = name) -> None:
            switch(name)

        def leave(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
            switch("decoder")
            for tensor in (output,) if isinstance(output, Tensor) else output:
                if tensor.requires_grad:
                    tensor.register_hook(lambda _: switch(name))

        handles += [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def head_named(workload: Workload, switch: Switch) -> Iterator[None]:
    """Of a decoder alone: the head is its last norm, the LM head and the loss."""

    def enter(_module: nn.Module, inputs: Any) -> None:
        switch("head")
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda _: switch("layers"))

    handle = workload.module.get_submodule("norm").register_forward_pre_hook(enter)
    try:
        yield
    finally:
        handle.remove()


def component_seconds(workload: Workload, count: int) -> dict[str, dict[str, float]]:
    """Median ``forward_s`` and ``backward_s`` of each component, over iterations of their own.

    At scope lvlm of tower, adapter and decoder, at scope decoder of layers and head; a layer is
    one component and has none. Of one micro-batch, without the optimizer.
    """
    if workload.cell.scope == "layer":
        return {}
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(count):
        for key, seconds in _once(workload).items():
            times.setdefault(key, []).append(seconds)
    components: dict[str, dict[str, float]] = {}
    for (component, phase), samples in times.items():
        components.setdefault(component, {})[phase] = median(samples)
    return components


def _once(workload: Workload) -> dict[tuple[str, str], float]:
    first, names = ("decoder", components_named) if workload.modules else ("layers", head_named)
    on_card, phase = workload.context.device.type == "cuda", "forward_s"
    marks: list[tuple[str, str, Any]] = []

    def now() -> Any:
        if not on_card:
            return time.perf_counter()
        event = cuda.Event(enable_timing=True)
        event.record()
        return event

    def switch(component: str) -> None:
        marks.append((component, phase, now()))

    with names(workload, switch):
        switch(first)
        outputs = workload.run_forward()
        if workload.cell.pass_ == "train":
            phase = "backward_s"
            switch(marks[-1][0])
            workload.run_backward(outputs)
            del outputs
        end = now()
    if on_card:
        cuda.synchronize(workload.context.device)
    seconds: dict[tuple[str, str], float] = {}
    moments = [mark[2] for mark in marks[1:]] + [end]
    for (component, phase_of, begin), until in zip(marks, moments, strict=True):
        lasted = begin.elapsed_time(until) / 1e3 if on_card else until - begin
        seconds[component, phase_of] = seconds.get((component, phase_of), 0.0) + lasted
    return seconds
