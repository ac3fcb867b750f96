"""NVML behind one door: an answer or the reason why there is none, never an exception.

CUDA numbers the cards that ``CUDA_VISIBLE_DEVICES`` leaves; NVML numbers all of them. The mapping
stands here.
"""

import os
from importlib import import_module
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What NVML said, or None and why."""

    value: Any
    reason: str | None = None


class Nvml:
    """An NVML library, or none and the reason. ``library`` is a module shaped like pynvml."""

    def __init__(self, library: Any = None) -> None:
        self.reason: str | None = None
        try:
            self._library = library = library or import_module("pynvml")
        except ModuleNotFoundError:
            self.reason = "NVML: nvidia-ml-py is not installed"
            return
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            self.reason = f"NVML: {error}"

    def ask(self, query: str, *arguments: Any) -> Answer:
        """Call the function of that name. A query that the driver lacks costs only its answer."""
        if self.reason is not None:
            return Answer(None, self.reason)
        function = getattr(self._library, query, None)
        if function is None:
            return Answer(None, f"{query}: this nvidia-ml-py does not have it")
        try:
            return Answer(function(*arguments))
        except self._library.NVMLError as error:
            return Answer(None, f"{query}: {error}")

    def _all(self) -> list[Any]:
        count = self.ask("nvmlDeviceGetCount").value or 0
        handles = [self.ask("nvmlDeviceGetHandleByIndex", index).value for index in range(count)]
        return [handle for handle in handles if handle is not None]

    def _by_uuid(self, word: str, handles: list[Any]) -> Any:
        if word.startswith("MIG-"):
            return self.ask("nvmlDeviceGetHandleByUUID", word).value
        # CUDA takes any prefix of a UUID that no other card shares.
        uuids = [self.ask("nvmlDeviceGetUUID", handle).value or "" for handle in handles]
        matches = [h for h, uuid in zip(handles, uuids, strict=True) if uuid.startswith(word)]
        return matches[0] if len(matches) == 1 else None

    def visible(self) -> list[Any]:
        """The handles of the cards that CUDA shows this process, in CUDA's order."""
        handles = self._all()
        names = {self.ask("nvmlDeviceGetName", handle).value for handle in handles}
        if len(names) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            return self._ask_cuda(handles)
        variable = os.environ.get("CUDA_VISIBLE_DEVICES")
        if variable is None:
            return handles
        cards: list[Any] = []
        for word in (part.strip() for part in variable.split(",")):
            if word.isdecimal() and int(word) < len(handles):
                handle = handles[int(word)]
            elif word.startswith(("GPU-", "MIG-")):
                handle = self._by_uuid(word, handles)
            else:
                handle = None
            if handle is None:  # CUDA ignores the first wrong entry and all that follow it
                break
            cards.append(handle)
        return cards

    def _ask_cuda(self, handles: list[Any]) -> list[Any]:
        """Different cards: CUDA puts the fastest first, and only CUDA can tell which that is."""
        cuda = import_module("torch").cuda
        uuids = [f"GPU-{cuda.get_device_properties(n).uuid}" for n in range(cuda.device_count())]
        by_uuid = {self.ask("nvmlDeviceGetUUID", handle).value: handle for handle in handles}
        return [by_uuid[uuid] for uuid in uuids if uuid in by_uuid]
