"""The JSON files beside a checkpoint: read once, as plain data, before any library sees them.

Nothing of a folder or a hub id is ever executed, and nothing here imports torch or transformers.
"""

import math
import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.inputs import hub
from workbench.inputs.files import read_json, shown
from workbench.vocabulary.errors import RequestError

MAX_BYTES = 4 * 2**20
"""Of one file: a published config is a few kilobytes, with all layers of an expert model 100."""
MAX_NUMBER = 10**15
"""No size, position, angle or limit of a model is larger."""
PREPROCESSORS = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
"""What says how images and video are prepared, beside config.json."""
OMNI = ("qwen2_5_omni", "qwen3_omni_moe")
"""Model types whose config.json has a section of a model that reads and one that speaks."""
OF_ALL = ("quantization_config", "dtype", "torch_dtype")
"""Fields outside of its sections that hold for each of them which does not state its own."""


@dataclass(frozen=True)
class ModelFiles:
    """Where the files of a model lie: a local folder, or a hub id's files in the hub's cache."""

    name: str
    folder: Path | None
    """None for a hub id, whose files are fetched one by one."""
    offline: bool = False
    """Whether only files that were fetched before count."""

    def read(self, file: str) -> dict[str, Any] | None:
        """A JSON file as an object, None where the model has none of that name.

        Raises RequestError, one line with the file's name, for a file that is not readable as one.
        """
        path = self.path(file)
        return None if path is None else read_object(path)

    def path(self, file: str) -> Path | None:
        """Where the file lies on this machine; None where the model has none of that name."""
        if self.folder is None:
            return (hub.cached if self.offline else hub.fetch)(self.name, file)
        path = self.folder / file
        return path if os.path.lexists(path) else None

    def config(self) -> dict[str, Any]:
        """config.json; raises RequestError where there is none."""
        config = self.read("config.json")
        if config is None:
            place = "the hub's cache" if self.folder is None else "the folder"
            instead = "" if self.folder is None else self._instead()
            raise RequestError(f"model {self.name!r}: {place} has no config.json{instead}")
        return thinker_of(config)

    def _instead(self) -> str:
        """What a folder without config.json is, where another file says it; else nothing."""
        adapter = self.read("adapter_config.json")
        if adapter is not None:
            base = adapter.get("base_model_name_or_path")
            name = f" {base!r:.90}" if isinstance(base, str) else ""
            return f": it holds an adapter; give the model under it{name}, and --lora"
        if self.read("params.json") is not None:
            return ": its params.json is of another form, which is not read"
        assert self.folder is not None, "a folder is asked"
        if next(self.folder.glob("*.gguf"), None) is not None:
            return ": its GGUF files are not read; give the model that they were made of"
        return ""

    def preprocessors(self) -> dict[str, dict[str, Any]]:
        """The files of PREPROCESSORS that there are, by name."""
        files = {file: self.read(file) for file in PREPROCESSORS}
        return {file: fields for file, fields in files.items() if fields is not None}


def thinker_of(config: dict[str, Any]) -> dict[str, Any]:
    """The section of an Omni model's config.json that reads and writes; any other as it is."""
    kind, thinker = config.get("model_type"), config.get("thinker_config")
    if kind not in OMNI or not isinstance(thinker, dict):
        return config
    around = {field: config[field] for field in OF_ALL if field in config}
    return {**around, **thinker, "model_type": f"{kind}_thinker"}


def names_a_folder(name: str) -> bool:
    """Whether a model's name is a folder of this machine, there or not; else it is a hub id."""
    return Path(name).is_absolute() or name.startswith(".") or os.path.isdir(name)


def is_file_model(name: str) -> bool:
    """Whether a name is of files, a folder's or a hub id's; else it is a word of the catalogue."""
    return "/" in name or names_a_folder(name)


def model_files(name: str, offline: bool = False) -> ModelFiles:
    """The files of a local folder or a hub id; raises RequestError for a folder not there.

    ``offline`` reads of a hub id only what lies in the hub's cache on this machine.
    """
    if not names_a_folder(name):
        return ModelFiles(name, None, offline)
    folder = Path(name)
    if not os.path.isdir(name):
        raise RequestError(f"model {name!r}: no such folder")
    return ModelFiles(name, folder)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object whose numbers are of a model, as ``files.read_json`` reads it.

    Raises RequestError, one line with the file's name.
    """
    document = read_json(path, "model", MAX_BYTES)
    problem = (
        _first_problem(document)
        if isinstance(document, dict)
        else f"a JSON object is expected, not {type(document).__name__}"
    )
    if problem is not None:
        raise RequestError(f"model {shown(path)}: {problem}")
    assert isinstance(document, dict)
    return document


def _first_problem(value: object) -> str | None:
    """A number that no model's file holds."""
    waiting: list[tuple[str, object]] = [("", value)]
    while waiting:
        where, item = waiting.pop()
        if isinstance(item, dict):
            waiting += [(str(key), inner) for key, inner in item.items()]
        elif isinstance(item, list):
            waiting += [(where, inner) for inner in item]
        elif isinstance(item, float) and not math.isfinite(item):
            return f"{where:.60}: not a finite number"
        elif isinstance(item, int) and abs(item) > MAX_NUMBER:
            return f"{where:.60}: {item!s:.20}… is beyond {MAX_NUMBER:,}"
    return None
