"""The hub's client is quiet while it is asked, and speaks again afterwards."""

import logging

from workbench.hub import quietly


def test_retries_are_not_told() -> None:
    client = logging.getLogger("huggingface_hub.utils._http")
    with quietly():
        assert not client.isEnabledFor(logging.WARNING)
        assert client.isEnabledFor(logging.ERROR)
    assert client.isEnabledFor(logging.WARNING)
