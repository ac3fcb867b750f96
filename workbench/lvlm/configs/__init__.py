"""A model's config.json as transformers' configuration, held against what the file states.

transformers drops fields that its class does not know and takes its own defaults for those that
are not there. Here whatever size the file states, flat or in a section, has to be what was built;
sizes that it leaves to a default are told as flags. Code of a folder or hub id is never run.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workbench.inputs.model_files import model_files
from workbench.lvlm.configs.fields import (
    SIZES,
    TOWER_SIZES,
    check_dividing,
    check_fields,
    sections,
)
from workbench.lvlm.configs.refused import REFUSED
from workbench.lvlm.configs.wrong_type import check_activations, with_fractions, wrong_type
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

UNREAD = {"paligemma": ("vocab_size", "hidden_size"), "molmo2": ("vit_config",)}
"""By outer model type, the outer fields of which transformers' class makes nothing, for published
files leave them out or to defaults of another size; and a section that its tower checks."""

UNTIED = ("qwen2_5_omni_text",)
"""Text models whose head is none of the embedding's where no file says: so had transformers 4,
which wrote the published ones, in ``Qwen2_5OmniTextConfig``, whose default is another today."""

RETIED = {"paddleocr_vl": "text_config"}
"""By outer model type, the section whose default of a tie transformers' class puts in place of
what the file states outside of it (``PaddleOCRVLConfig``). What the file states is taken here."""

FLAT = {"glm4v": "glm4v_text"}
"""By outer model type, the text model's, whose fields transformers 4 read beside the sections
where there was no text_config (``Glm4vConfig``). Today's class makes nothing of them there."""

OWN_TOWER = "mm_vision_tower"
"""By which LLaVA's own files name their tower, some of them under the type of transformers'."""

TRUTHS = ("attn_temperature_tuning",)
"""Fields that published files have as numbers and transformers 4 took as true: Llama 4's say 4.
Today's class takes true or false alone."""


@contextmanager
def silent() -> Iterator[None]:
    """Without transformers' remarks about configurations, which are not asked for."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def one_line(error: BaseException) -> str:
    """The first line of what a library raised, or the name of its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return f"{text:.200}" or type(error).__name__


def load(name: str) -> "tuple[dict[str, Any], PreTrainedConfig, PreTrainedConfig]":
    """What the file states, transformers' whole configuration, and the text model's within it.

    Raises RequestError, one line, for a folder or hub id without a config that can be loaded.
    """
    stated = model_files(name).config()
    return stated, *load_stated(name, stated)


def load_stated(name: str, stated: dict[str, Any]) -> "tuple[PreTrainedConfig, PreTrainedConfig]":
    """The whole configuration and the text model's of a config.json's fields; raises as above."""
    from transformers import PreTrainedConfig

    check_fields(name, stated)
    check_served(name, stated["model_type"])
    if stated["model_type"] == "llava" and OWN_TOWER in stated:
        raise RequestError(
            f"model {name!r}: model_type 'llava' with {OWN_TOWER} is not served: "
            f"{REFUSED['llava_llama']}"
        )
    check_activations(name, stated)
    whole = _whole(name, stated)
    if retied(stated):
        whole.tie_word_embeddings = stated["tie_word_embeddings"]
    try:
        config = whole.get_text_config()
    except ValueError as error:
        raise RequestError(f"model {name!r}: which text model? {one_line(error)}") from None
    if not isinstance(config, PreTrainedConfig):
        raise RequestError(f"model {name!r}: its text model's section is {config!r:.40}")
    if config is not whole and config.model_type == whole.model_type:
        # Of a flat file (HunyuanOCR's) the class takes the outer type for the text model's too.
        config.model_type = type(config).model_type
    check_served(name, config.model_type)
    if hasattr(config, "allow_global_per_layer_attribute_access"):
        # What differs by layer is read of the layers themselves.
        with silent():
            config.allow_global_per_layer_attribute_access = True
            _ = [getattr(config, field, None) for field in SIZES]  # It warns of each once.
    return whole, config


def retied(stated: Mapping[str, Any]) -> bool:
    """Whether transformers' class would overrule what a file states of tied embeddings."""
    kind, field = stated.get("model_type"), "tie_word_embeddings"
    section = stated.get(RETIED[kind]) if kind in RETIED else None
    inner = section.get(field) if isinstance(section, Mapping) else None
    return kind in RETIED and stated.get(field) is False and inner is None


def check_served(name: str, kind: object) -> None:
    """Raise RequestError for a model type that is refused by name, with the reason."""
    reason = REFUSED.get(kind) if isinstance(kind, str) else None
    if reason is not None:
        raise RequestError(f"model {name!r}: model_type {kind!r} is not served: {reason}")


def _whole(name: str, stated: dict[str, Any]) -> "PreTrainedConfig":
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    kind = stated["model_type"]
    if kind not in CONFIG_MAPPING:
        own = "auto_map" in stated
        raise RequestError(
            f"model {name!r}: model_type {kind!r:.60} is unknown to transformers"
            + ("; the code that comes with the model is never run" if own else "")
        )
    # transformers' AutoConfig makes these another model, whose layers alternate.
    if kind == "mistral" and "layer_types" in stated:
        raise RequestError(
            f"model {name!r}: model_type 'mistral' with layer_types is transformers' ministral, "
            "which is not a supported family"
        )
    fields = _as_truths({key: value for key, value in stated.items() if key != "auto_map"})
    if _is_flat(stated):
        text = {key: value for key, value in fields.items() if not isinstance(value, Mapping)}
        turning = {
            key: fields[key] for key in ("rope_scaling", "rope_parameters") if key in fields
        }
        fields["text_config"] = {**text, **turning, "model_type": FLAT[kind]}
    while True:
        try:
            with silent():
                config = CONFIG_MAPPING[kind].from_dict(fields)
        except Exception as error:  # noqa: BLE001 - dozens of classes, each with its own checks
            read = with_fractions(error, fields)
            if read is None:
                why = wrong_type(error, fields)
                why = why or f"its config cannot be loaded: {one_line(error)}"
                raise RequestError(f"model {name!r}: {why}") from None
            fields = read
        else:
            assert isinstance(config, PreTrainedConfig)
            return config


def _as_truths(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields and sections with true or false where a file has a number for it."""
    return {
        key: _as_truths(value)
        if isinstance(value, Mapping)
        else bool(value)
        if key in TRUTHS and isinstance(value, int)
        else value
        for key, value in fields.items()
    }


def _is_flat(stated: Mapping[str, Any]) -> bool:
    """Whether a file has its text model's fields where only an older release read them."""
    return stated["model_type"] in FLAT and "text_config" not in stated and "hidden_size" in stated


def check_built(
    name: str,
    stated: Mapping[str, Any],
    whole: "PreTrainedConfig",
    config: "PreTrainedConfig",
) -> list[str]:
    """Raise RequestError where a stated size is not what was built; flags of what is not stated.

    Sets ``config.tie_word_embeddings`` to what holds for the checkpoint, and the dropout of
    attention weights to 0.
    """
    kind = type(whole).__name__
    unread = UNREAD.get(whole.model_type, ())
    stated = {field: value for field, value in stated.items() if field not in unread}
    parts = {key: getattr(whole, key, None) for key in getattr(whole, "sub_configs", {})}
    text = next((key for key, part in parts.items() if part is config), None)
    for where, section in sections(stated):
        key, _, rest = where.partition(".")
        if rest or not (set(section) & set(SIZES)):
            continue
        part: Any
        fields: tuple[str, ...]
        if where == "":
            part, fields = config, SIZES
        elif parts.get(key) is not None:
            part, fields = parts[key], SIZES if key == text else TOWER_SIZES
        elif text is None and key not in parts:
            raise RequestError(
                f"model {name!r}: its section {key} is nothing that transformers' {kind} reads"
            )
        else:
            raise RequestError(
                f"model {name!r}: transformers' {kind} makes no model of its section {key}"
            )
        for field in fields:
            built = getattr(part, field, None)
            if field == "head_dim" and built is None and part.num_attention_heads:
                built = part.hidden_size // part.num_attention_heads  # As its layers take it.
            _compare(name, kind, where, field, section.get(field), built)
    if text is not None:
        # Some wrappers size their LM head by fields of their own, which have defaults.
        for field in SIZES:
            if field in unread or field in stated:
                continue
            if isinstance(getattr(type(whole), field, None), int):
                _compare(
                    name,
                    kind,
                    f"{text}.",
                    field,
                    getattr(config, field, None),
                    getattr(whole, field),
                )
    check_dividing(name, config)
    nested = stated.get(text) if text is not None else None
    inner: Mapping[str, Any] = nested if isinstance(nested, Mapping) else {}
    flags = _defaults(stated, inner, config)
    flags += _without_dropout(config)
    config.tie_word_embeddings, why = _tied(stated, inner, text, whole, config)
    if _is_flat(stated):
        why.append(
            f"config: its text model's fields stand outside of a text_config, where transformers' "
            f"{kind} no longer reads them; they are read as transformers 4 did"
        )
    for where, section in sections(stated):
        why += [
            f"config: {where}{field} {section[field]} is read as {bool(section[field])}, as "
            "transformers 4 did"
            for field in TRUTHS
            if type(section.get(field)) is int
        ]
    if names_own_model(stated):
        why.append(
            "auto_map: config.json names code beside it for the model, which is never run; this "
            f"is transformers' {whole.model_type}"
        )
    return [*flags, *why]


def names_own_model(stated: Mapping[str, Any]) -> bool:
    """Whether a file names code beside it for the model itself, not for its config alone."""
    names = stated.get("auto_map")
    return isinstance(names, Mapping) and any(str(key).startswith("AutoModel") for key in names)


def _compare(name: str, kind: str, where: str, field: str, wanted: Any, built: Any) -> None:
    same = wanted is None or built == wanted
    if not same and isinstance(wanted, list):
        same = isinstance(built, (list, tuple)) and list(built) == wanted
    if not same and isinstance(built, (list, tuple)):
        same = set(built) == {wanted}
    if not same:
        raise RequestError(
            f"model {name!r}: config.json states {where}{field} {wanted}, but transformers' "
            f"{kind} builds {built}; a model of another size would be answered for"
        )


def _defaults(
    stated: Mapping[str, Any], inner: Mapping[str, Any], config: "PreTrainedConfig"
) -> list[str]:
    """A flag that names the sizes which only transformers' class supplies."""
    names: list[str] = []
    for field in SIZES:
        own = getattr(type(config), field, None)
        if isinstance(own, int) and inner.get(field) is None and stated.get(field) is None:
            built = getattr(config, field)
            sizes = sorted(set(built)) if isinstance(built, list) else [built]
            names.append(f"{field} {' and '.join(f'{size:,}' for size in sizes)}")
    if not names:
        return []
    return [
        f"config: config.json does not state {', '.join(names)}: the default of transformers' "
        f"{type(config).__name__}"
    ]


def _without_dropout(config: "PreTrainedConfig") -> list[str]:
    """Set the dropout of attention weights to 0, and say so where there is one."""
    dropout = getattr(config, "attention_dropout", None)
    if not isinstance(dropout, (int, float)) or dropout <= 0:
        return []
    config.attention_dropout = 0.0
    return [f"attention_dropout {dropout:g}: is not run in training here"]


def _tied(
    stated: Mapping[str, Any],
    inner: Mapping[str, Any],
    text: str | None,
    whole: "PreTrainedConfig",
    config: "PreTrainedConfig",
) -> tuple[bool, list[str]]:
    """Whether the LM head is the embedding, and a flag where transformers would read it otherwise.

    transformers goes by the outermost configuration. Where the file says so only in the text
    model's section, that is taken, as it is where neither says anything and the defaults differ:
    an outer default is no statement about this checkpoint.
    """
    field = "tie_word_embeddings"
    outer = bool(getattr(whole, field, False))
    if retied(stated):
        return outer, [
            f"{field}: {outer} as config.json states it; transformers' {type(whole).__name__} "
            "takes True where the text model's section does not say"
        ]
    if text is None or isinstance(stated.get(field), bool):
        return outer, []
    own = inner.get(field)
    if not isinstance(own, bool):
        own = config.model_type not in UNTIED and getattr(config, field, None)
    if not isinstance(own, bool) or own == outer:
        return outer, []
    verb = "states" if isinstance(inner.get(field), bool) else "leaves"
    return own, [
        f"{field}: {own} as its text model {verb} it; transformers' {type(whole).__name__} takes "
        f"{outer} where config.json does not say"
    ]
