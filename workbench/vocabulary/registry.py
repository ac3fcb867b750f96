"""One small registry: a second entry of a name raises, an unknown name lists the choices.

Entries come from files of the workbench and, where a registry takes them, from plug-ins: installed
packages that name an entry under the registry's group of entry points (docs/extend.md).
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Generic, TypeVar

from workbench.vocabulary.errors import RequestError, unknown_name

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Names to entries of one kind. ``package`` is imported, file by file, at the first look-up.

    Adding an entry is therefore one new file in that package, and no edit elsewhere.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._group: str | None = None
        self._type: type[T] | None = None
        self._plugins: dict[str, EntryPoint] | None = None

    def add(self, name: str, entry: T) -> T:
        """Register ``entry``; raises ValueError when the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """``add`` as a decorator."""
        return lambda entry: self.add(name, entry)

    def take_plugins(self, group: str, kind: type[T]) -> None:
        """Take entries of type ``kind`` from the entry points of ``group``, too.

        A plug-in's code is loaded when its name is looked up, or all entries are; a name that is
        taken, and code that fails, are a RequestError then.
        """
        self._group, self._type = group, kind

    def _load(self) -> dict[str, T]:
        if self._package is not None:
            package, self._package = import_module(self._package), None
            for module in iter_modules(package.__path__, package.__name__ + "."):
                import_module(module.name)
        return self._entries

    def _offered(self) -> "dict[str, EntryPoint]":
        """The plug-ins by the name that each offers, none of them loaded."""
        if self._group is None:
            return {}
        if self._plugins is None:
            from importlib.metadata import entry_points

            own, offers = self._load(), dict[str, "EntryPoint"]()
            for offer in entry_points(group=self._group):
                if offer.name in own or offer.name in offers:
                    raise RequestError(
                        f"{self._named(offer)}: the name is taken; uninstall or rename one of them"
                    )
                offers[offer.name] = offer
            self._plugins = offers
        return self._plugins

    def _named(self, offer: "EntryPoint") -> str:
        package = f" of {offer.dist.name}" if offer.dist is not None else ""
        return f"{self.kind} {offer.name!r}: plug-in{package} ({offer.value})"

    def _from_plugin(self, offer: "EntryPoint") -> T:
        """Load a plug-in's entry; raises RequestError, one line, whatever goes wrong in it."""
        try:
            entry = offer.load()
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise RequestError(f"{self._named(offer)} cannot be loaded: {reason}") from error
        assert self._type is not None
        if not isinstance(entry, self._type):
            raise RequestError(
                f"{self._named(offer)} is a {type(entry).__name__}, not a {self._type.__name__}"
            )
        if (name := getattr(entry, "name", offer.name)) != offer.name:
            raise RequestError(f"{self._named(offer)} calls itself {name!r}")
        return self.add(offer.name, entry)

    def __getitem__(self, name: str) -> T:
        """The entry of that name; raises RequestError with the near names otherwise."""
        entries, plugins = self._load(), self._offered()
        if name in entries:
            return entries[name]
        if name in plugins:
            return self._from_plugin(plugins[name])
        raise unknown_name(self.kind, name, self)

    def __contains__(self, name: object) -> bool:
        return name in self._load() or name in self._offered()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._load(), *self._offered())))

    def __len__(self) -> int:
        return len(self._load().keys() | self._offered())
