"""Model families and the published configurations: one file a family.

A family names the transformers module whose own configuration, layer and rotary classes are built,
and says how the parts of a layer are found. A model is a family and the fields of its published
config. transformers is imported when something is built, not before.
"""

import json
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.inputs.model_files import is_file_model, model_files
from workbench.lvlm.configs import check_built, load_stated, one_line, silent
from workbench.lvlm.optimizers.settings import MISTRAL, Hyper
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.rope import check_rope, hold_rope
from workbench.vocabulary.errors import RequestError, unknown_name
from workbench.vocabulary.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedConfig

    from workbench.lvlm.models.around import Around
    from workbench.lvlm.parts import LayerParts

FAMILIES: "Registry[Family]" = Registry("model family", __name__)
MODELS: "Registry[Model]" = Registry("model", __name__)
PAPER = "siglip"
"""The tower of the D-Attn paper, which text models take."""


@contextmanager
def _without_scipy() -> Iterator[None]:
    """Every model file imports the losses of object detection, and those scipy.optimize.

    No decoder uses them, and the import takes as long as a prediction: transformers is told, while
    it imports, that there is no scipy.
    """
    import transformers.utils as utils

    asked = utils.is_scipy_available
    utils.is_scipy_available = lambda: False
    try:
        yield
    finally:
        utils.is_scipy_available = asked


@dataclass(frozen=True)
class Family:
    """One model type of transformers."""

    model_type: str
    """transformers' word for the text decoder's configuration, e.g. ``gemma3_text``."""
    package: str
    """The package under ``transformers.models``."""
    prefix: str
    """The prefix of its class names, e.g. ``Mistral``."""
    parts: "Callable[[nn.Module], LayerParts]"
    config_name: str = ""
    lm_name: str = ""
    scaled_embeddings: bool = False
    """Whether text embeddings are multiplied by the root of the hidden size (Gemma)."""
    deepstack: bool = False
    """Whether features of its tower are added to visual rows between its first layers."""
    scaled_queries: bool = False
    """Whether every layer multiplies queries by a factor of the positions that it is given."""
    training: Hyper = field(default=MISTRAL, hash=False)
    """AdamW's settings where the decoder is trained."""

    def embed_scale(self, config: "PreTrainedConfig") -> float:
        """The factor of the text embeddings."""
        return config.hidden_size**0.5 if self.scaled_embeddings else 1.0

    def visual_scale(self, config: "PreTrainedConfig") -> float:
        """The factor of the visual embeddings, where the decoder takes any."""
        return 1.0

    def from_transformers(self, name: str, module: str = "modeling") -> Any:
        """A class or function of the family's transformers module."""
        return getattr(self.module(module), name)

    def module(self, name: str = "modeling") -> Any:
        """The family's transformers module of that kind."""
        with _without_scipy():
            return import_module(f"transformers.models.{self.package}.{name}_{self.package}")

    def config(self, fields: dict[str, Any]) -> "PreTrainedConfig":
        """The family's configuration with the published ``fields``."""
        return self.from_transformers(self.config_name or f"{self.prefix}Config", "configuration")(
            **fields
        )

    def layer(self, config: "PreTrainedConfig", index: int) -> "nn.Module":
        """The real decoder layer of that index, uninitialised where the context is ``meta``."""
        return self.from_transformers(f"{self.prefix}DecoderLayer")(config, index)

    def logit_scale(self, config: "PreTrainedConfig") -> float | None:
        """What the text model's own class multiplies logits with; None where it does not."""
        return None

    def check(self, name: str, config: "PreTrainedConfig") -> None:
        """Raise RequestError for a size of the family that no part of this package expresses."""

    def notes(self, config: "PreTrainedConfig") -> list[str]:
        """What a reader of every number of such a model should know, as a record's flags."""
        return []

    scaling_wholes: ClassVar[frozenset[str]] = frozenset()
    """Outer model types whose class around the text model multiplies logits as that's own does."""

    norm_name: ClassVar[str] = "norm"
    """transformers' word for the final norm of the decoder."""

    altup: ClassVar[bool] = False
    """Whether a token has several hidden states between layers (AltUp, ``attention/altup.py``)."""

    latent: ClassVar[bool] = False
    """Whether a cache has latents in place of keys and values (``lvlm/parts/latent.py``)."""

    modal: ClassVar[bool] = False
    """Whether visual rows meet experts of their own (``attention/modal.py``)."""

    text_prefix: ClassVar[str] = ""
    """A pattern of what begins the text model's names in a checkpoint of the whole, where that has
    a class which needs timm: without it the text model is loaded alone. Else empty."""

    def plain_only(self, config: "PreTrainedConfig") -> str:
        """What of its layers only the layer as it is expresses (S-Attn alone); else empty."""
        return ""

    def per_layer(self, config: "PreTrainedConfig") -> bool:
        """Whether ids have an embedding for every layer, where last layers may also attend with
        keys and values of others (``attention/per_layer.py``)."""
        return False

    def around(self, config: "PreTrainedConfig") -> "Around":
        """What stands between embedding, layers and norm. Asked only where ``per_layer`` holds."""
        raise NotImplementedError

    def variant(self, config: "PreTrainedConfig", index: int) -> Hashable:
        """What a layer computes that neither its modules nor their sizes show."""
        return None

    def given(self, tables: "tuple[Tensor, Tensor]") -> Any:
        """What the family's layer takes as ``position_embeddings``, of cos and sin."""
        return tables

    def cross_layers(self, config: "PreTrainedConfig") -> frozenset[int]:
        """The layers that read the images by cross-attention, where no visual row is in the
        sequence; empty for a family whose sequence has them."""
        return frozenset()

    def embedded(self, config: "PreTrainedConfig") -> int:
        """Rows of the embedding of ids."""
        return int(config.vocab_size)

    def settle(self, layer: "nn.Module", device: "torch.device", dtype: "torch.dtype") -> None:
        """Give a layer that was made without memory the values of its buffers."""

    def experts(self, config: "PreTrainedConfig") -> "Experts | None":
        """How many experts a layer with experts has; None where the family has none."""
        count = getattr(config, "num_experts", None)
        return Experts(config.num_experts_per_tok, count) if count else None

    def router(self, layer: Any) -> "nn.Module | None":
        """What scores the experts of a layer for each token; None where it has none."""
        gate = getattr(getattr(layer, "mlp", None), "gate", None)
        return gate if hasattr(gate, "top_k") else None

    def norm(self, config: "PreTrainedConfig") -> "nn.Module":
        """The final norm of the decoder."""
        return self.from_transformers(f"{self.prefix}RMSNorm")(
            config.hidden_size, eps=config.rms_norm_eps
        )

    def rotary(self, config: "PreTrainedConfig") -> "nn.Module":
        """The family's rotary embedding."""
        return self.from_transformers(f"{self.prefix}RotaryEmbedding")(config)

    def causal_lm(self) -> Any:
        """The class that loads whole checkpoints (``from_pretrained``)."""
        return self.from_transformers(self.lm_name or f"{self.prefix}ForCausalLM")

    def cos_sin(
        self, rotary: "nn.Module", like: "Tensor", positions: "torch.Tensor", layer_type: str
    ) -> "tuple[Tensor, Tensor]":
        """cos and sin [1, S, K] in the dtype of ``like`` for int64 positions [S]."""
        return rotary(like, positions.unsqueeze(0))

    def scales_queries(self, config: "PreTrainedConfig", index: int) -> bool:
        """Whether the layer of that index multiplies queries by a factor of their position."""
        return self.scaled_queries

    def query_factor(self, config: "PreTrainedConfig", positions: "Tensor") -> "Tensor":
        """What queries at int64 positions [S] are multiplied with, float32 [S].

        Asked only where queries are scaled.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Model:
    """A published model: its family, its configuration's fields and where they were published."""

    family: str
    fields: dict[str, Any] = field(hash=False)
    source: str = ""
    tower: str = PAPER
    """The vision tower of scope ``lvlm``; a text model takes the paper's."""
    around: dict[str, Any] = field(default_factory=dict, hash=False)
    """The fields of config.json around the text model's, ``model_type`` and ``vision_config``
    among them; empty for a text model and where the tower's file has the published ones."""

    def stated(self) -> dict[str, Any]:
        """Its whole config.json; empty where nothing is stated around the text model."""
        kind = FAMILIES[self.family].model_type
        if self.around.get("model_type") == kind:  # No section is the text model's.
            return deepcopy({**self.around, **self.fields})
        text = {"model_type": kind, **self.fields}
        return deepcopy({**self.around, "text_config": text}) if self.around else {}


FAMILIES.take_plugins("workbench.families", Family)
MODELS.take_plugins("workbench.models", Model)


@dataclass(frozen=True)
class Resolved:
    """A name turned into a family and a ready configuration."""

    name: str
    family: Family
    config: "PreTrainedConfig" = field(hash=False)
    whole: "PreTrainedConfig | None" = field(default=None, hash=False)
    """The configuration around it, with the vision tower's; None where nothing states one."""
    stated: dict[str, Any] = field(default_factory=dict, hash=False)
    """The fields of its config.json; empty for a model of the catalogue that has nothing stated
    around its text model."""
    tower: str = ""
    """The vision tower that such a model of the catalogue names; empty for one read from files."""
    flags: tuple[str, ...] = ()
    """What a reader of its numbers should know, as a record's flags."""

    @property
    def wrapped(self) -> bool:
        """Whether its text model is a part of a whole, whose class computes the logits."""
        return self.whole is not None and self.whole is not self.config

    @property
    def logit_scale(self) -> float | None:
        """What logits are multiplied with: by a text model's own class, by few around it."""
        around = self.whole.model_type if self.whole is not None and self.wrapped else None
        scales = around is None or around in self.family.scaling_wholes
        return self.family.logit_scale(self.config) if scales else None

    def layer_type(self, index: int) -> str:
        """``full_attention`` or ``sliding_attention``, transformers' words."""
        types = getattr(self.config, "layer_types", None)
        return types[index] if types else "full_attention"

    @property
    def global_layer(self) -> int:
        """The first layer that sees the whole sequence."""
        count = self.config.num_hidden_layers
        return next((i for i in range(count) if self.layer_type(i) == "full_attention"), 0)


def resolve(name: str) -> Resolved:
    """A catalogue name, a local folder with a config, or a hub id of a supported family.

    Raises RequestError with near names, or with what the folder lacks.
    """
    if name in MODELS:
        entry = _of_catalogue(name, MODELS[name])
    elif is_file_model(name):
        entry = _of_file(_File(json.dumps(model_files(name).config()), name))
    else:
        raise unknown_name("model", name, MODELS)
    # Who builds a model writes into its configuration.
    config, whole = deepcopy((entry.config, entry.whole))
    return replace(entry, name=name, config=config, whole=whole)


@lru_cache(maxsize=256)
def _of_catalogue(name: str, model: Model) -> Resolved:
    family = FAMILIES[model.family]
    stated = model.stated()
    if not stated:
        return Resolved(name, family, family.config(model.fields), tower=model.tower)
    whole, config = load_stated(name, stated)
    flags = check_built(name, stated, whole, config)
    family.check(name, config)
    return Resolved(name, family, config, whole, stated, flags=tuple(flags))


@dataclass(frozen=True)
class _File:
    """A config.json: its text is what a model is made of, its name what an error tells."""

    text: str
    name: str = field(compare=False)


@lru_cache(maxsize=256)
def _of_file(file: _File) -> Resolved:
    name, stated = file.name, json.loads(file.text)
    whole, config = load_stated(name, stated)
    family = next((f for f in FAMILIES.values() if f.model_type == config.model_type), None)
    if family is None:
        outer, inner = stated["model_type"], config.model_type
        types = ", ".join(sorted(f.model_type for f in FAMILIES.values()))
        of_text = "" if inner == outer else f", whose text model is {inner!r},"
        raise RequestError(
            f"model {name!r}: model_type {outer!r}{of_text} is not a supported family; known: "
            f"{types}"
        )
    flags = check_built(name, stated, whole, config)
    family.check(name, config)
    resolved = Resolved(name, family, config, whole, stated, flags=tuple(flags))
    _try(resolved)
    return resolved


def _try(model: Resolved) -> None:
    """Build what a decoder is made of, on shapes alone.

    Raises RequestError, one line, for whatever transformers' classes find wrong with the config.
    """
    import torch

    config, family = model.config, model.family
    check_rope(model.name, config)
    try:
        with torch.device("meta"), silent():
            kinds = {model.layer_type(i): i for i in range(config.num_hidden_layers)}
            layers = [(kind, family.layer(config, index)) for kind, index in kinds.items()]
            family.norm(config)
            rotary, like = family.rotary(config), torch.empty(0)
            hold_rope(rotary)
            for kind, layer in layers:
                parts = family.parts(layer)
                cos, sin = family.cos_sin(rotary, like, torch.arange(2), kind)
                x = torch.empty(1, parts.num_heads, 2, parts.head_dim)
                if parts.rope(x, cos, sin).shape != x.shape:
                    raise ValueError("rotary embeddings of another size than head_dim")
            if any(family.scales_queries(config, index) for index in kinds.values()):
                family.query_factor(config, torch.arange(2))
    except Exception as error:  # noqa: BLE001 - dozens of classes, each with its own checks
        raise RequestError(
            f"model {model.name!r}: transformers cannot build its layers: {one_line(error)}"
        ) from None
