"""The hub of published models: one file at a time, and quietly. Nothing fetched is executed."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.vocabulary.errors import RequestError

ANSWER_S = 2.0
"""Seconds for the hub's first answer, the look-up of its name included; the client's own
HF_HUB_ETAG_TIMEOUT, where it is set, counts instead."""
SILENT_S = 60.0
"""Seconds for which a hub that did not answer is not asked again."""
_silent: tuple[float, str] | None = None
"""When the hub did not answer last, and what was wrong."""


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
        path = try_to_load_from_cache(name, file)
    except HFValidationError:
        return None
    return Path(path) if isinstance(path, str) else None


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
        # The client tries for half a minute what it has no copy of; of a copy it asks once.
        if cached(name, file) is None and (silence := _silence(name, file)) is not None:
            raise ConnectionError(silence)
        with quietly():
            return Path(hf_hub_download(name, file, etag_timeout=_patience()))
    except RemoteEntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        if file != "config.json" and cached(name, "config.json") is not None:
            return None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(
            f"model {name!r}: its {file} cannot be fetched: {reason:.160}"
        ) from None


def _silence(name: str, file: str) -> str | None:
    """Why the hub gives no answer at all about a file; None where it gives any.

    Whether it answers is found out once: the look-up of a name has no time-out of its own, and
    every file of a model would wait for it again.
    """
    global _silent
    if _silent is not None and time.monotonic() - _silent[0] < SILENT_S:
        return _silent[1]
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    patience = _patience()
    previous: list[str | None] = []

    def ask() -> None:
        try:
            with quietly():
                get_hf_file_metadata(hf_hub_url(name, file), timeout=patience)
        except (HfHubHTTPError, HFValidationError):
            previous.append(None)  # It answers, or is not asked: the client says the rest.
        except OfflineModeIsEnabled:
            previous.append("HF_HUB_OFFLINE is set, and the hub's cache here has no such file")
        except Exception as error:  # noqa: BLE001 - whatever the client's transport raises
            previous.append(f"the hub does not answer: {error or type(error).__name__}")
        else:
            previous.append(None)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    silence = previous[0] if previous else f"the hub does not answer within {patience:g} s"
    _silent = None if silence is None else (time.monotonic(), silence)
    return silence


def _patience() -> float:
    from huggingface_hub import constants

    own = constants.HF_HUB_ETAG_TIMEOUT
    return ANSWER_S if own == constants.DEFAULT_ETAG_TIMEOUT else float(own)
