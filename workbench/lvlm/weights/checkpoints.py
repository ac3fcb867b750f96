"""Real checkpoints: read once through ``from_pretrained``, broken files named.

Tensors go by their name inside the text model (``layers.0.…``), those of a vision tower and its
projector by theirs inside the whole (``visual.…``, ``vision_tower.…``,
``multi_modal_projector.…``).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.inputs.files import read_json, require_file
from workbench.lvlm.configs import load
from workbench.lvlm.configs.packages import obstacle
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved

INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 64 * 2**20
"""The index of 90,000 tensors has 9 MB."""


HOLDERS = {"shieldgemma2": "ShieldGemma2ForImageClassification"}
"""By outer model type, transformers' class whose checkpoints are published: one that holds the
whole as its ``model``, and no parameter of its own."""


@dataclass(frozen=True)
class Held:
    """Where a tensor lies: the file, and its shape there."""

    file: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a checkpoint by their short names."""

    source: str
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Held]
    tower: str | None
    """transformers' word for the kind of its vision tower; None for a text model."""

    def copy(self, name: str, parameter: Tensor) -> None:
        """Copy one tensor; raises RequestError where it is missing or of another shape."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.shape != parameter.shape:
            state = "missing" if tensor is None else "mis-shaped"
            shape = None if tensor is None else tuple(tensor.shape)
            raise _wrong(self.source, self.files, state, name, shape, tuple(parameter.shape))
        with torch.no_grad():
            parameter.copy_(tensor)

    def fill(self, prefix: str, module: nn.Module) -> None:
        """Copy every parameter of a module, and every buffer that a checkpoint has.

        Their names there begin with ``prefix``.
        """
        for name, tensor in module.state_dict(keep_vars=True).items():
            self.copy(f"{prefix}{name}", tensor)

    def holds(self, prefix: str) -> bool:
        """Whether any name begins so."""
        return any(name.startswith(prefix) for name in self.tensors)


def short(name: str) -> str:
    """A tensor's name without what stands around the text model."""
    for around in ("model.", "language_model.", "text_model.", "model."):
        name = name.removeprefix(around)
    return name


def read_checkpoint(source: str, model: "Resolved") -> Checkpoint:
    """All tensors of a checkpoint, a text model's or a vision-language model's.

    ``source`` is a hub id or a folder. Raises RequestError, naming the file and the tensor, for a
    checkpoint that cannot be read, lacks a tensor or holds one of another shape than its own
    configuration says.
    """
    from huggingface_hub import try_to_load_from_cache

    check_source(source)
    folder = Path(source)
    files = read_headers(folder, source) if os.path.isdir(source) else {}
    kind = model.config.model_type
    try:
        whole, loaded, info = _load(source, model)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RequestError(
            f"weights {source!r}: cannot be loaded: {reason}; expected config.json and "
            f"model.safetensors of a {kind} model"
        ) from None
    if not files:
        cached = try_to_load_from_cache(source, "config.json")
        files = read_headers(Path(cached).parent, source) if isinstance(cached, str) else {}
    state = loaded.state_dict()
    for name in sorted(info["missing_keys"]):
        raise _wrong(source, files, "missing", name, None, tuple(state[name].shape))
    for name, shape, expected in sorted(info["mismatched_keys"]):
        raise _wrong(source, files, "mis-shaped", name, tuple(shape), tuple(expected))
    vision = getattr(whole, "vision_config", None)
    return Checkpoint(
        source,
        {short(name): tensor for name, tensor in state.items()},
        files,
        None if vision is None else vision.model_type,
    )


def _load(source: str, model: "Resolved") -> tuple[Any, Any, dict[str, Any]]:
    """Configuration, model and loading report, by the class that the configuration asks for."""
    import transformers
    from transformers import AutoModelForImageTextToText

    _, whole, text = load(source)
    # A configuration without a section for the text model belongs to that family's own class.
    seeing = getattr(whole, "vision_config", None) is not None and whole is not text
    kind: Any = AutoModelForImageTextToText if seeing else model.family.causal_lm()
    only: dict[str, Any] = {"config": whole} if seeing else {}
    if seeing and model.family.text_prefix and obstacle("timm"):
        kind = model.family.causal_lm()
        only = {"config": text, "key_mapping": {f"^{model.family.text_prefix}": "model."}}
    holder = HOLDERS.get(whole.model_type)
    loaded, info = (kind if holder is None else getattr(transformers, holder)).from_pretrained(
        source,
        **only,
        dtype="auto",
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        trust_remote_code=False,
    )
    if holder is None:
        return whole, loaded, info
    missing = {name.removeprefix("model.") for name in info["missing_keys"]}
    mismatched = [(name.removeprefix("model."), *rest) for name, *rest in info["mismatched_keys"]]
    return whole, loaded.model, {"missing_keys": missing, "mismatched_keys": mismatched}


def check_source(source: str) -> None:
    """Raise RequestError for a local folder that holds no checkpoint; a hub id is not asked."""
    folder = Path(source)
    local = folder.is_absolute() or source.startswith(".") or os.path.exists(source)
    if not local:
        return
    if not os.path.exists(folder / "config.json"):
        raise RequestError(f"weights {source!r}: not a folder with a config.json")
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    for path in (folder / "config.json", *files):
        require_file(path, f"weights {source!r}:")
    if not files:
        raise RequestError(
            f"weights {source!r}: the folder has no weights; expected model.safetensors"
        )


def read_headers(folder: Path, source: str) -> dict[str, Held]:
    """Every tensor's file and shape, from the headers of the safetensors files alone.

    Raises RequestError for a file that is cut off or is none, and for a shard or a tensor that
    the index names and that is not there.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Held] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as weights_file:
                for name in weights_file.keys():  # noqa: SIM118 - no mapping: it has keys() alone
                    shape = tuple(weights_file.get_slice(name).get_shape())
                    tensors[name] = Held(path.name, shape)
        except (SafetensorError, OSError) as error:
            raise RequestError(
                f"weights {source!r}: {path.name}: not a whole safetensors file: {error}"
            ) from None
    for name, file in _index(folder, source).items():
        if name not in tensors or tensors[name].file != file:
            there = (folder / file).is_file()
            what = f"missing tensor {name}" if there else f"no such file, expected tensor {name}"
            raise RequestError(f"weights {source!r}: {file}: {what}, which {INDEX} promises")
    return tensors


def _index(folder: Path, source: str) -> dict[str, str]:
    path = folder / INDEX
    if not os.path.exists(path):
        return {}
    document = read_json(path, f"weights {source!r}:", MAX_INDEX_BYTES)
    try:
        names = document["weight_map"]
        return {str(name): str(file) for name, file in names.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"weights {source!r}: {INDEX}: expected JSON with a weight_map: {error}"
        ) from None


def _wrong(
    source: str,
    files: Mapping[str, Held],
    state: str,
    name: str,
    shape_there: tuple[int, ...] | None,
    expected: tuple[int, ...],
) -> RequestError:
    """The error for one tensor, with the file that holds it or its nearest neighbours."""

    def alike(other: str) -> int:
        pairs = zip(short(other).split("."), short(name).split("."), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    near = max(files, key=alike, default=None)
    file = "" if near is None else f"{files[near].file}: "
    shape = "" if shape_there is None else f" is {shape_there},"
    return RequestError(
        f"weights {source!r}: {file}{state} tensor {name}{shape} expected {expected}"
    )
