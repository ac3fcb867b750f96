"""A Cell: one point of a sweep, what is run and never how it is measured.

Types and ranges are checked here; names (models, systems, kernels, devices) are opaque words that
the torch half resolves. Nothing here imports torch.
"""

import hashlib
import json
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, Field, field_validator, model_validator

from workbench.vocabulary.agreement import SUB_GROUP_SIZE, check_agreement
from workbench.vocabulary.fields import (
    MODEL,
    AllocatorSetting,
    CacheDtype,
    Count,
    Description,
    Dtype,
    Logits,
    LossRows,
    MasterWeights,
    Name,
    Pass,
    Positive,
    RingOrder,
    Role,
    Scope,
    WeightsDtype,
    Whole,
    make_model,
)
from workbench.vocabulary.lora import Lora, canonical_lora, lora_of
from workbench.vocabulary.systems import KINDS, canonical, entry
from workbench.vocabulary.units import SHORT_DTYPES

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=1024)
def _layout(value: str) -> str:
    parts = [p for p in re.split(r"[,\s]+", value.strip().upper()) if p]
    kinds = [p[0] for p in parts if re.fullmatch(r"[VT]([1-9][0-9]{0,9})?", p)]
    alternates = all(a != b for a, b in pairwise(kinds))
    if not parts or len(kinds) < len(parts) or not alternates or kinds[-1] != "T":
        raise ValueError(
            "a layout alternates V and T and ends in T, such as V,T or T,V,T; numbers are "
            "sizes of segments, such as V729,T,V1458,T"
        )
    return ",".join(parts)


class Cell(BaseModel):
    """One point of a sweep: what is run, never how it is measured. See DESIGN for each word.

    ``pass`` is a keyword of Python, so the attribute is ``pass_``; documents say ``pass``.
    """

    model_config = MODEL

    model: Annotated[
        Name,
        Description(
            "a name of `workbench list models`, a hub id, or a folder with a `config.json` of a "
            "supported family",
            role="subject",
        ),
    ] = "mistral-7b-v0.3"
    attention: Annotated[Name, Description("an attention system", role="system")] = "s_attn"
    kernel: Annotated[Name, Description("an attention kernel", role="system")] = "sdpa"
    scope: Annotated[
        Scope,
        Description(
            "`layer`: one decoder layer; `decoder`: all layers, norm, LM head, loss; `lvlm`: with "
            "vision tower and adapter",
            role="subject",
        ),
    ] = "layer"
    # As ``alias`` it would be what type checkers take for the only name of the argument.
    pass_: Annotated[
        Pass,
        Description(
            "`forward` (prefill), `train` (forward, backward; at scope `decoder` the optimizer "
            "too), `decode` (one token against a cache)",
            role="subject",
        ),
    ] = Field(
        default="forward",
        validation_alias=AliasChoices("pass", "pass_"),
        serialization_alias="pass",
    )
    num_visual: Annotated[
        Count,
        Description(
            "number of visual tokens |V|; at scope `lvlm` also from `--image FILE` (repeatable) "
            "or `--video FILE --fps F`",
            option="--visual",
            role="size",
        ),
    ]
    num_text: Annotated[
        Count,
        Description(
            "number of text tokens",
            label="Text tokens |T|",
            option="--text",
            caption="|T| = {:,}",
        ),
    ] = 64
    batch: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description("samples in an iteration", caption="batch {:,}"),
    ] = 1
    dtype: Annotated[
        Dtype,
        Description(
            "`float64`, `float32`, `bfloat16`, `float16`", label="Data type", caption="{}"
        ),
    ] = "bfloat16"
    layout: Annotated[
        str,
        Description(
            "how images and text alternate: `T,V,T`, `V,T,V,T`; segments are alike unless sizes "
            "are given, `V729,T,V1458,T`",
            caption="layout {}",
        ),
    ] = "V,T"
    logits: Annotated[
        Logits,
        Description(
            "rows of the LM head: `all` or `text`; systems of which no visual row reaches it have "
            "only `text`",
            label="Logits on",
        ),
    ] = "all"
    loss_rows: Annotated[
        LossRows,
        Description(
            "rows that the loss of a training step runs over: the `text` rows, or `all` with "
            "labels -100 elsewhere, as transformers' own",
            label="Loss over",
        ),
    ] = "text"
    zero: Annotated[
        int,
        Field(ge=0, le=3, strict=True),
        Whole,
        Description("DeepSpeed ZeRO stage 0 to 3", label="ZeRO stage"),
    ] = 0
    world_size: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description("number of ranks, one a GPU, that share the states"),
    ] = 1
    sub_group_size: Annotated[
        int,
        Field(ge=1, le=10**12, strict=True),
        Whole,
        Description(
            "elements of a rank's share that ZeRO 3 steps at a time, at least; deepspeed's default"
        ),
    ] = SUB_GROUP_SIZE
    accumulate: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description(
            "micro-batches (of `--batch` samples) that one optimizer step adds up",
            label="Micro-batches a step",
        ),
    ] = 1
    frozen: Annotated[
        str | None,
        Description(
            "components of scope `lvlm` that are not trained: `decoder,tower`",
            label="Frozen components",
            unset="none",
        ),
    ] = None
    lora: Annotated[
        str | None,
        Description(
            "a train pass of LoRA adapters beside the decoder's frozen linear layers: "
            "`r=16,alpha=32,targets=all-linear` (or `q_proj+v_proj`, `dtype=float32`, "
            "`dropout=0.05`); everything else is frozen",
            label="LoRA",
            unset="none",
            operators=True,
        ),
    ] = None
    weights_dtype: Annotated[
        WeightsDtype | None,
        Description(
            "how the frozen matrices of the decoder's layers are held: `int4` (NF4, double "
            "quantisation; measured with bitsandbytes), `int8`, `fp8` (predicted only); in "
            "training with `--lora`",
            label="Frozen weights in",
            unset="the dtype",
            operators=True,
        ),
    ] = None
    optimizer: Annotated[
        Name,
        Description(
            "what a training step of a whole model ends in, an optimizer of docs/reference.md; "
            "under deepspeed AdamW alone",
            operators=True,
        ),
    ] = "adamw"
    master_weights: Annotated[
        MasterWeights,
        Description(
            "what the optimizer steps on where weights are bfloat16: `float32` copies of them, or "
            "`bfloat16`, the weights themselves",
            operators=True,
        ),
    ] = "float32"
    ulysses: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description(
            "GPUs that share one sequence by heads (DeepSpeed-Ulysses; S-Attn, training at scope "
            "`decoder`, SDPA kernels, no window)",
            role="system",
        ),
    ] = 1
    ring: Annotated[
        int,
        Field(ge=1, le=1_000_000, strict=True),
        Whole,
        Description(
            "GPUs that share one sequence by rows, whose keys and values go around (S-Attn, also "
            "with `--ulysses`; the decomposed systems share their visual tokens; training at "
            "scope `decoder`, fused kernels, no window)",
            role="system",
        ),
    ] = 1
    ring_order: Annotated[
        RingOrder,
        Description(
            "which rows a rank of a ring has: two chunks that even out causality (`zigzag`), or "
            "one run (`contiguous`)",
            label="Rows of a ring",
            role="system",
        ),
    ] = "zigzag"
    layer: Annotated[
        Annotated[int, Field(ge=0, le=10_000, strict=True), Whole] | None,
        Description(
            "which layer scope `layer` builds",
            unset="the first with global attention",
            caption="layer {:.0f}",
        ),
    ] = None
    fold: Annotated[
        bool,
        Description("output projection folded over the query groups (D-Attn)", role="system"),
    ] = False
    chunk: Annotated[
        Positive | None,
        Description(
            "visual stream in chunks of N tokens, recomputed in backward (D-Attn)",
            unset="off",
            role="system",
        ),
    ] = None
    skip_last: Annotated[
        bool, Description("no visual output of the last layer (D-Attn)", role="system")
    ] = False
    tiled: Annotated[bool, Description("MLP and logits in tiles", role="system")] = False
    cache: Annotated[
        bool,
        Description(
            "a forward pass keeps the keys and values of every layer, as inference does (S-Attn, "
            "FastV, PyramidDrop, the D-Attn family, HiMix, SAISA); `limit` of a whole model's "
            "forward does so by itself, `--no-cache` leaves it out",
            role="system",
        ),
    ] = False
    cache_dtype: Annotated[
        CacheDtype | None,
        Description(
            "how keys and values are held: `bfloat16` (under float32), `fp8`, `int8` with their "
            "scales; in a decode step, and in a prefill, which then keeps them (S-Attn, FastV, "
            "PyramidDrop)",
            label="Cache in",
            unset="the dtype",
            operators=True,
        ),
    ] = None
    experts_skew: Annotated[
        bool,
        Description(
            "all tokens are sent to the same experts of a layer, the worst that a router does; "
            "evenly without it",
            operators=True,
        ),
    ] = False
    checkpoint: Annotated[
        bool, Description("gradient checkpointing of every layer", role="system")
    ] = False
    checkpoint_every: Annotated[
        Annotated[int, Field(ge=1, le=10_000, strict=True), Whole] | None,
        Description("gradient checkpointing of every K layers", unset="off", role="system"),
    ] = None
    offload: Annotated[
        bool,
        Description(
            "what the decoder's checkpoints keep waits in host memory; a train pass with "
            "`--checkpoint` at scope `decoder` or `lvlm`",
            role="system",
        ),
    ] = False
    offload_optimizer: Annotated[
        bool,
        Description(
            "AdamW's states and step on the host (ZeRO 1 to 3, also on one GPU)", role="system"
        ),
    ] = False
    visual_positions: Annotated[
        bool,
        Description("learnable positions added to the visual embeddings", role="system"),
    ] = False
    tower: Annotated[
        Name | None,
        Description(
            "at scope `lvlm`: `siglip` asks for the paper's tower and adapter",
            unset="the model's own",
        ),
    ] = None
    compile: Annotated[bool, Description("through `torch.compile`", role="system")] = False
    memory_cap: Annotated[
        Annotated[int, Field(ge=1, strict=True)] | Name | None,
        Description(
            "bytes, or a device whose capacity is emulated on a larger card",
            unset="off",
            caption="memory capped at {} (emulated)",
        ),
    ] = None
    allocator: Annotated[
        AllocatorSetting,
        Description(
            "the setting of CUDA's caching allocator: `default` or `expandable_segments`, which "
            "trainers use; replayed in a prediction, set in the worker of a measurement"
        ),
    ] = "default"
    weights: Annotated[
        Name | None,
        Description(
            "a hub id or a folder whose weights are loaded",
            unset="random",
            caption="weights {}",
        ),
    ] = None
    reduce: Annotated[
        Name | None,
        Description(
            "a reducer, which makes |V'| visual tokens of |V|, between the tower (scope "
            "`decoder`: the visual embeddings) and the layers",
            label="Reducer",
            unset="none",
            role="system",
            operators=True,
        ),
    ] = None
    settings: Annotated[
        str | None,
        Description(
            "a setting of the system or the reducer, `name=value`; may be repeated. Where both "
            "declare a name, `owner.name=value`",
            option="--set",
            unset="none",
            role="system",
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _of_its_system(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        named = {kind: data.get(kind) for kind in KINDS}
        named["attention"] = named["attention"] or "s_attn"
        fields = {**data}
        if data.get("settings") is not None:
            fields["settings"] = canonical(data["settings"], named)
        if data.get("cache_dtype") is not None:
            dtype = data.get("dtype", "bfloat16")
            if data["cache_dtype"] == SHORT_DTYPES.get(str(dtype), dtype):
                fields["cache_dtype"] = None
            elif data.get("pass", data.get("pass_", "forward")) == "forward":
                fields["cache"] = True  # Only what is kept has a type.
        system = entry("attention", named["attention"])
        # Of some systems no visual token reaches the LM head.
        if system is not None and system.logits == "text":
            if data.get("logits") not in (None, "text"):
                raise ValueError(
                    f"logits {data['logits']!r}: {system.name} has no visual rows in its LM head; "
                    "use 'text'"
                )
            fields["logits"] = "text"
        return fields

    @field_validator("layout", mode="before")
    @classmethod
    def _layout(cls, value: Any) -> str:
        return _layout(str(value))

    @field_validator("frozen", mode="before")
    @classmethod
    def _frozen(cls, value: Any) -> str | None:
        names = value if isinstance(value, (list, tuple)) else str(value or "").split(",")
        return ",".join(sorted({str(name).strip() for name in names} - {""})) or None

    @field_validator("lora", mode="before")
    @classmethod
    def _lora(cls, value: Any) -> str | None:
        return canonical_lora(value)

    @property
    def lora_adapters(self) -> Lora | None:
        """What ``lora`` says; None for none."""
        return None if self.lora is None else lora_of(self.lora)

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The names in ``frozen``."""
        return tuple(self.frozen.split(",")) if self.frozen else ()

    @property
    def optimizes(self) -> bool:
        """Whether an iteration ends in an optimizer step."""
        return self.pass_ == "train" and self.scope != "layer"

    @property
    def steps_plainly(self) -> bool:
        """Whether its optimizer is AdamW with float32 masters of narrower weights, the default."""
        return self.optimizer == "adamw" and self.master_weights == "float32"

    @property
    def sharing(self) -> int:
        """Ranks that share one sequence, by heads and by rows."""
        return self.ulysses * self.ring

    @property
    def under_deepspeed(self) -> bool:
        """Whether its training step runs under deepspeed: on several ranks, or under ZeRO."""
        return self.world_size > 1 or self.zero > 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_agreement(self)
        return self

    @property
    def key(self) -> str:
        """16 hex digits that identify the cell on every machine and in every version.

        Only fields that differ from their defaults are hashed: a new field leaves old keys alone.
        """
        return self.key_at()(self.num_visual)

    def key_at(self) -> Callable[[int], str]:
        """The keys of this cell at any |V|: in what is hashed one number differs."""
        changed = self.model_dump(by_alias=True, exclude_defaults=True)
        text = _CANONICAL.encode({**changed, "num_visual": 0})
        # It stands there once: the quotes of a name within a string are escaped.
        before, after = text.split('"num_visual":0')

        def key(num_visual: int) -> str:
            whole = f'{before}"num_visual":{num_visual}{after}'
            return hashlib.sha256(whole.encode()).hexdigest()[:16]

        return key

    def at(self, num_visual: int) -> Self:
        """A copy with another |V|; of its checks only those between fields are made again."""
        cell = self.model_copy(update={"num_visual": num_visual})
        check_agreement(cell)
        return cell

    @property
    def kind(self) -> tuple[Any, ...]:
        """Every field but |V|: what cells that differ in nothing else share, to group them by."""
        fields = dict(self.__dict__)
        del fields["num_visual"]
        return tuple(fields.values())

    def document(self) -> dict[str, Any]:
        """All fields under their public names (``pass``, not ``pass_``), JSON-ready."""
        return self.model_dump(by_alias=True)

    def replace(self, **changes: Any) -> Self:
        """A copy with ``changes``, validated again; ``pass`` may be called ``pass_``."""
        named = {PUBLIC_NAMES.get(name, name): value for name, value in changes.items()}
        return type(self).model_validate({**self.document(), **named})

    @property
    def title(self) -> str:
        """A short human name: system, kernel and |V|, then every option that is switched on."""
        words = [self.model, self.attention, self.kernel, self.scope, self.pass_]
        words.append(f"V={self.num_visual:,}")
        words += [name for name in OPTION_FLAGS if getattr(self, name)]
        words += [f"chunk={self.chunk}"] if self.chunk else []
        return " ".join(words)


PUBLIC_NAMES = {
    name: field.serialization_alias or name for name, field in Cell.model_fields.items()
}
"""The attributes of a cell and the names of its fields in documents (``pass`` of ``pass_``)."""

FIELDS = {PUBLIC_NAMES[name]: field for name, field in Cell.model_fields.items()}
"""The fields of a cell by their public names (``pass``, not ``pass_``)."""


DESCRIPTIONS: dict[str, Description] = {
    name: next(each for each in field.metadata if isinstance(each, Description))
    for name, field in FIELDS.items()
}
"""What is said of each field, by its public name."""

OPTION_FLAGS = tuple(name for name, field in FIELDS.items() if field.annotation is bool)
"""The on/off fields of a cell."""


def option_of(name: str) -> str:
    """The option of the command line that sets a field, by the field's public name."""
    return DESCRIPTIONS[name].option or "--" + name.replace("_", "-")


def value_type(name: str) -> type:
    """What a field's value is beside None: ``bool``, ``int`` or, whatever it names, ``str``."""
    annotation = FIELDS[name].annotation
    union = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    kinds = {get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in union}
    kinds.discard(NoneType)
    return kinds.pop() if kinds in ({bool}, {int}) else str


def fields_with(role: Role) -> tuple[str, ...]:
    """The public names of the fields of a role, in order."""
    return tuple(name for name, description in DESCRIPTIONS.items() if description.role == role)


def field_label(name: str) -> str:
    """How a field of a cell, by its public name, is called where people read it."""
    return DESCRIPTIONS[name].label or name.replace("_", " ").capitalize()


def make_cell(**fields: Any) -> Cell:
    """A Cell from public field names; raises RequestError, one line, where a value is wrong."""
    return make_model(Cell, fields)
