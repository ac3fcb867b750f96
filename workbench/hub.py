"""The hub of published models: one file at a time, and quietly. Nothing fetched is executed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import RequestError


@contextmanager
def quietly() -> Iterator[None]:
    """Without the client's warnings of every retry: a failure says the same in one line."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def cached(name: str, file: str) -> Path | None:
    """A file of a hub id that lies in the hub's cache on this machine; nobody is asked."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def fetch(name: str, file: str) -> Path | None:
    """A file of a hub id, from the cache or the hub; None where the hub has none of that name.

    Raises RequestError, one line, where the hub cannot be asked or has no such model. What the
    cache lacks of a model whose config it holds counts as not there while the hub is out of reach.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
    except ImportError:
        raise RequestError(f"model {name!r}: asking the hub needs huggingface_hub") from None
    try:
        with quietly():
            return Path(hf_hub_download(name, file))
    except RemoteEntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        if file != "config.json" and cached(name, "config.json") is not None:
            return None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(
            f"model {name!r}: its {file} cannot be fetched: {reason:.160}"
        ) from None
