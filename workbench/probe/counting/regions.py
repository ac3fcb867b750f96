"""Which region of a layer computes what: V2V, T2V, T2T, MLP, norms, LM head and their like.

Systems and kernels name the regions that are theirs (``parts/marks.py``); modules of the families
are named here, by hooks that exist only while somebody looks.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from workbench.lvlm.parts import OwnTiles
from workbench.lvlm.parts.marks import Marker, marked_by
from workbench.lvlm.scopes.decoder import Decoder
from workbench.lvlm.workload import Workload

OTHER = "other"
OUTERMOST = ("tower", "reducer", "adapter", "V2V")
"""Regions that are one whole, whatever modules they run: V2V is D-Attn's output projection."""
PROJECTIONS = (
    *("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "out_proj"),
    *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
)
"""Of a layer with keys and values; a linear one names its own pieces (``attention/linear.py``)."""


def innermost(names: Sequence[str]) -> str:
    """The region that a stack of names, the outermost first, stands for."""
    whole = next((name for name in names if name in OUTERMOST), None)
    return whole or (names[-1] if names else OTHER)


@contextmanager
def named(workload: Workload, marker: Marker) -> Iterator[None]:
    """Every region of the workload is entered through ``marker``, in forward and recomputation."""
    opened: list[AbstractContextManager[object]] = []
    handles = []

    def leave(*_: Any) -> None:
        opened.pop().__exit__(None, None, None)

    for module, name in _modules(workload).items():

        def enter(*_: Any, name: str = name) -> None:
            block = marker(name)
            block.__enter__()
            opened.append(block)

        # A checkpoint stops its recomputation by an exception, in the middle of a module.
        handles += [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave, always_call=True),
        ]
    try:
        with marked_by(marker):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _modules(workload: Workload) -> dict[nn.Module, str]:
    names: dict[nn.Module, str] = {}
    for parts, _, _ in workload.layers:
        for norm in (
            parts.input_norm,
            parts.post_attention_norm,
            parts.mlp_norm,
            parts.post_mlp_norm,
            parts.q_norm,
            parts.k_norm,
            parts.v_norm,
        ):
            if norm is not None:
                names[norm] = "norms"
        names[parts.mlp] = "MLP"
        if isinstance(parts.mlp, OwnTiles):  # The real layer runs its modules one by one.
            names |= dict.fromkeys(parts.mlp.children(), "MLP")
        # Its forward runs under S-Attn alone: one softmax over every pair.
        names[parts.attention] = "attention"
        if parts.linear is not None:
            continue
        projections = (getattr(parts.attention, name, None) for name in PROJECTIONS)
        names |= {module: "projections" for module in projections if module is not None}
    for module in workload.module.modules():
        if isinstance(module, Decoder):
            names[module.norm] = "norms"
    return names


class Nodes:
    """The region of an operator while autograd runs it: a node's is that of its forward.

    torch numbers nodes as forwards make them; an operator that makes one meets it as the newest.
    """

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._here = innermost(self._stack)
        """The region that the stack stands for."""
        self._by_number: dict[int, str] = {}
        self._last = OTHER

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """The marker of ``named``."""
        self._stack.append(name)
        self._here = innermost(self._stack)
        try:
            yield
        finally:
            self._stack.pop()
            self._here = innermost(self._stack)

    def now(self) -> str:
        """The region of the operator that is being dispatched."""
        node = torch._C._current_autograd_node()
        if node is None or self._stack:
            self._last = self._here
            self._by_number.setdefault(torch.autograd._get_sequence_nr() - 1, self._last)
        else:
            # A sum of gradients has no number of its own: it belongs to what ran before it.
            self._last = self._by_number.get(node._sequence_nr(), self._last)
        return self._last
