"""transformers imported for one prediction, without what no prediction asks of it.

A decoder layer's file imports half of torch on its way: the compiler (``torch._dynamo``) for
decorators that keep functions out of it, sharded tensors, distributed checkpoints, and the tables
of all models that transformers knows. That takes longer than importing torch and predicting
together, in a process that predicts one cell and ends.

``defer_imports`` puts stand-ins in their place, which hold as little as can be told for certain:

- a class of a module that was never loaded has no instances, so ``isinstance`` is False;
- a decorator that speaks to the compiler leaves the function as it is, while nothing compiles;
- functions on sizes that may be symbols do with plain numbers what they do;
- values that tables of shardings are made of at import (``Replicate()``) have no content;
- whoever asks a stand-in for anything else starts the program anew, with whole imports.

Only for the versions that the tests run with, whose imports they hold against whole ones.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

TRIED_WITH = {"torch": "2.13.0", "transformers": "5.23.0"}
"""The pins of constraints.txt; a test compares them."""
WHOLE = "WORKBENCH_WHOLE_IMPORTS"
"""A variable of the environment that keeps imports whole: the name of what was needed."""
DEFERRED = (
    "sympy",
    "torch._dynamo",
    "torch.distributed._composable",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.fx.experimental.symbolic_shapes",
    "torch.utils._sympy",
)
"""Packages for which, and for whose modules, stand-ins are imported."""
BARE = ("transformers", "transformers.models")
"""Packages whose ``__init__``, which lists every file below, runs when a name is asked of it."""
KEPT = ("torch._dynamo.config",)
"""Modules of them that are loaded all the same: settings, which checkpointing looks at."""
LEAVES_ALONE = {
    ("torch._dynamo", name) for name in ("allow_in_graph", "assume_constant_result", "disable")
}
"""Decorators that matter to a compiler alone."""

VALUES = ("Partial", "Replicate", "Shard", "_StridedShard")
"""Classes of torch.distributed.tensor whose instances say how a tensor is sharded, and no more."""


class _Plain(NamedTuple):
    """What a function of symbolic_shapes does where nothing of its arguments is a symbol."""

    kind: type
    """Of every number in an argument; with any other, the real function is needed."""
    simple: Callable[..., Any]
    numbers: Callable[[Any], tuple[Any, ...]] = lambda argument: (argument,)
    """The numbers in an argument."""


def _of_sizes(argument: Any) -> tuple[Any, ...]:
    return tuple(argument) if isinstance(argument, tuple) else (argument,)


def _of_tensor(tensor: Any) -> tuple[Any, ...]:
    return (*tensor.size(), *tensor.stride(), tensor.storage_offset())


PLAIN = {
    "expect_true": _Plain(bool, lambda a: a),
    "free_unbacked_symbols": _Plain(int, lambda tensor: set(), _of_tensor),
    "guard_or_false": _Plain(bool, lambda a: a),
    "guard_or_true": _Plain(bool, lambda a: a),
    "guarding_hint_or_throw": _Plain(int, lambda a: a),
    "has_guarding_hint": _Plain(int, lambda a: True),
    "is_nested_int": _Plain(int, lambda s: False),
    "statically_known_false": _Plain(bool, lambda x: not x),
    "statically_known_true": _Plain(bool, lambda x: x),
    "sym_and": _Plain(bool, lambda *all_of: all(all_of)),
    "sym_eq": _Plain(int, lambda x, y: x == y, _of_sizes),
    "sym_or": _Plain(bool, lambda *any_of: any(any_of)),
}
"""Those that torch's rules for shapes call."""


def defer_imports() -> bool:
    """Let this process import transformers without the rest; False where it is too late for that,
    or for versions that it was not tried with.

    For a program that predicts and ends: one that compiles would miss the decorators' marks, and
    what it printed before it is started anew is printed twice.
    """
    if WHOLE in os.environ:
        return False
    loaded = any(name in sys.modules for name in (*DEFERRED, *BARE))
    if loaded or any(_version(name) != tried for name, tried in TRIED_WITH.items()):
        return False
    sys.meta_path.insert(0, _Finder())
    utils: Any = import_module("transformers.utils")
    # Processors ask for the whole package while they are imported, to look names up later.
    utils.direct_transformers_import = lambda path: sys.modules["transformers"]
    return True


def are_deferred() -> bool:
    """Whether stand-ins are imported in this process."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def _version(package: str) -> str | None:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


class _Finder(MetaPathFinder, Loader):
    """Finds stand-ins for the packages of DEFERRED and BARE."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in BARE:
            real = PathFinder.find_spec(name, path)
            assert real is not None, "its version was read from the installed package"
            spec = ModuleSpec(name, self, origin=real.origin, is_package=True)
            spec.submodule_search_locations = real.submodule_search_locations
            return spec
        root = _root(name)
        if root is None:
            return None
        if name in KEPT:
            return PathFinder.find_spec(name, path)
        spec = ModuleSpec(name, self, is_package=True)
        if name == root:
            real = PathFinder.find_spec(name, path)
            assert real is not None, "torch has it in the version that it was read to have"
            spec.submodule_search_locations = real.submodule_search_locations
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return (_BarePackage if spec.name in BARE else _StandIn)(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "transformers":
            module.__version__ = TRIED_WITH["transformers"]  # type: ignore[attr-defined]


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _root(name: str) -> str | None:
    """The package of DEFERRED that a module belongs to."""
    return next((r for r in DEFERRED if name == r or name.startswith(f"{r}.")), None)


class _BarePackage(ModuleType):
    """A package of which the path is known; a name that is no module's runs its ``__init__``."""

    def __getattr__(self, name: str) -> Any:
        if _is_special(name) or PathFinder.find_spec(f"{self.__name__}.{name}", self.__path__):
            raise AttributeError(name)
        return getattr(self._whole(), name)

    def _whole(self) -> ModuleType:
        if sys.modules[self.__name__] is self:
            parent, _, _ = self.__name__.rpartition(".")
            spec = PathFinder.find_spec(
                self.__name__, sys.modules[parent].__path__ if parent else None
            )
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[self.__name__] = module_from_spec(spec)
            spec.loader.exec_module(module)
        return sys.modules[self.__name__]


class _StandIn(ModuleType):
    """A module that is not loaded; its names are classes without instances until it is."""

    def __getattr__(self, name: str) -> Any:
        if _is_special(name):
            raise AttributeError(name)
        if f"{self.__name__}.{name}" in KEPT:
            return import_module(f"{self.__name__}.{name}")
        if (self.__name__, name) in LEAVES_ALONE:
            return _leave_alone
        if self.__name__.endswith(".symbolic_shapes") and name in PLAIN:
            return _plain(self.__name__, name)
        return _Missing(self.__name__, name)


def _plain(module: str, name: str) -> Callable[..., Any]:
    kind, simple, numbers = PLAIN[name]

    def call(*args: Any, **kwargs: Any) -> Any:
        if not kwargs and all(type(n) is kind for arg in args for n in numbers(arg)):
            return simple(*args)
        _begin_anew(module)

    return call


def _leave_alone(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator, with or without options, that changes nothing."""
    return _identity if function is None else function


def _identity(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class _Missing:
    """A class or function of a module that is not loaded: without instances and subclasses."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __instancecheck__(self, instance: object) -> bool:
        return False

    def __subclasscheck__(self, subclass: type) -> bool:
        return False

    def __or__(self, other: object) -> Any:
        return Any  # Of an annotation, which nobody reads here.

    __ror__ = __or__

    def __call__(self, *_: Any, **__: Any) -> Any:
        return _Sharding() if self._name in VALUES else _begin_anew(self._module)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        _begin_anew(self._module)

    def __getattr__(self, name: str) -> Any:
        if _is_special(name):
            raise AttributeError(name)
        _begin_anew(self._module)


class _Sharding:
    """How a tensor would be sharded, which nothing that predicts one process asks."""

    def __getattr__(self, name: str) -> Any:
        if _is_special(name):
            raise AttributeError(name)
        _begin_anew("torch.distributed.tensor")


def _begin_anew(module: str) -> NoReturn:
    """Begin the program anew with whole imports: ``module`` is needed after all.

    To load it here would be in the midst of a trace, where it would hold on to what is counted.
    """
    os.environ[WHOLE] = module
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
