"""Optimizers by name: one file each says what is held for a parameter and what a step takes.

A step is of one parameter at a time. Bytes here are arithmetic, so that a prediction imports none
of the packages; ``make`` gives the real class, against which tests hold the arithmetic.
"""

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from workbench.vocabulary.registry import Registry

if TYPE_CHECKING:
    import torch

    from workbench.lvlm.optimizers.settings import Hyper

OPTIMIZERS: "Registry[Optimizer]" = Registry("optimizer", __name__)

FLOAT = 4
"""Bytes of a float32 element."""
Shape = tuple[int, ...]


class Stepped(NamedTuple):
    """A parameter as an optimizer meets it: a weight, or its float32 master."""

    shape: Shape
    item: int
    """Bytes of an element."""
    matrix: bool = True
    """Whether it is a matrix of a layer: no embedding, no LM head, nothing of one dimension."""

    @property
    def numel(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its own bytes."""
        return self.item * self.numel


class Temporaries(NamedTuple):
    """What a step allocates for one parameter and lets go before it is over."""

    sizes: tuple[int, ...] = ()
    """Bytes of each tensor."""
    requests: tuple[int, ...] = ()
    """In their order: n takes the tensor n, ~n lets it go."""

    @property
    def peak(self) -> int:
        """The most that is there at once, in bytes."""
        live = most = 0
        for request in self.requests:
            live += self.sizes[request] if request >= 0 else -self.sizes[~request]
            most = max(most, live)
        return most


class Sequence:
    """Requests as they are written down: ``take`` a tensor, ``give`` it back."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._requests: list[int] = []

    def take(self, size: int) -> int:
        """A tensor of so many bytes; returns its number."""
        self._sizes.append(size)
        self._requests.append(len(self._sizes) - 1)
        return self._requests[-1]

    def give(self, *numbers: int) -> None:
        """Let tensors go."""
        self._requests += [~number for number in numbers]

    def done(self) -> Temporaries:
        """All of them; what nobody gave back goes last."""
        unserved = [n for n in range(len(self._sizes)) if ~n not in self._requests]
        self.give(*unserved)
        return Temporaries(tuple(self._sizes), tuple(self._requests))


class Optimizer:
    """One optimizer. Subclasses say what it holds and how it is made."""

    name: str
    dtypes: tuple[str, ...] = ("float64", "float32", "bfloat16", "float16")
    """Data types of a cell that it takes."""

    def states(self, of: Stepped) -> tuple[int, ...]:
        """Bytes of each tensor that it holds for a parameter between steps."""
        raise NotImplementedError

    def shared(self, of: Stepped) -> int:
        """Bytes of what it holds once for all parameters, if this one needs it."""
        return 0

    def paged(self, of: Stepped) -> int:
        """How many of ``states``, from the first on, a card's driver moves between card and host
        as they are used: torch's allocator does not know them.
        """
        return 0

    def temporaries(self, of: Stepped, card: bool) -> Temporaries:
        """What its step allocates for a parameter, on a card or on the CPU. Single numbers, such
        as norms, are left out.
        """
        raise NotImplementedError

    def flops(self, of: Stepped) -> int:
        """FLOPs of the matmuls of its step."""
        return 0

    def make(
        self,
        parameter: "torch.Tensor",
        matrix: bool,
        rate: float,
        settings: "Hyper",
    ) -> "torch.optim.Optimizer":
        """The real one over one parameter, with its states there.

        Raises RequestError where its package is not installed.
        """
        raise NotImplementedError
