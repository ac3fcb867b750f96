"""One small registry: a second entry of a name raises, an unknown name lists the choices."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Generic, TypeVar

from workbench.errors import unknown_name

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Names to entries of one kind. ``package`` is imported, file by file, at the first look-up.

    Adding an entry is therefore one new file in that package, and no edit elsewhere.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register ``entry``; raises ValueError when the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """``add`` as a decorator."""
        return lambda entry: self.add(name, entry)

    def _load(self) -> dict[str, T]:
        if self._package is not None:
            package, self._package = import_module(self._package), None
            for found in iter_modules(package.__path__, package.__name__ + "."):
                import_module(found.name)
        return self._entries

    def __getitem__(self, name: str) -> T:
        """The entry of that name; raises RequestError with the near names otherwise."""
        entries = self._load()
        if name not in entries:
            raise unknown_name(self.kind, name, entries)
        return entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._load()

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())
