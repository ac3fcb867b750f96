"""The vocabulary of a request: a Cell is one point, a Sweep is the grid of cells to visit.

Types and ranges are checked here; names (models, systems, kernels, devices) are opaque words that
the torch half resolves. Nothing here imports torch.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise, product
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from workbench.collector import without_collector
from workbench.errors import RequestError
from workbench.lora import Lora, canonical_lora, lora_of
from workbench.pictures import Pictures
from workbench.systems import KINDS, canonical, entry
from workbench.units import SHORT_DTYPES, count_of

MAX_TOKENS = 10**9
"""The largest |V| or |T| of a cell: 23 days of video at 512 tokens a second."""

SUB_GROUP_SIZE = 1_000_000_000
"""deepspeed's default of ``sub_group_size``, in elements."""

MAX_POINTS = 100_000
"""The most cells of a sweep: to make them takes some 6 s and 0.8 GB."""
AXES = (
    "models",
    "scopes",
    "passes",
    "dtypes",
    "text",
    "batches",
    "attentions",
    "kernels",
    "options",
    "visual",
)
"""The axes of a grid, outermost first."""
SINGULAR = {
    "model": "models",
    "scope": "scopes",
    "pass": "passes",
    "dtype": "dtypes",
    "batch": "batches",
    "attention": "attentions",
    "kernel": "kernels",
}
"""An axis may go by the name of the cell's field that it sets."""


def _long_count(value: Any) -> Any:
    found = count_of(value) if isinstance(value, str) else None
    return value if found is None else found


def _long_dtype(value: Any) -> Any:
    return SHORT_DTYPES.get(value, value) if isinstance(value, str) else value


Whole = BeforeValidator(_long_count)
"""``10k`` and ``1.5M`` are whole numbers, too."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f]+$")]
Count = Annotated[int, Field(ge=0, le=MAX_TOKENS, strict=True), Whole]
Positive = Annotated[int, Field(ge=1, le=MAX_TOKENS, strict=True), Whole]
Scope = Literal["layer", "decoder", "lvlm"]
Pass = Literal["forward", "train", "decode"]
Dtype = Annotated[
    Literal["float64", "float32", "bfloat16", "float16"], BeforeValidator(_long_dtype)
]
Logits = Literal["all", "text"]
LossRows = Literal["text", "all"]
WeightsDtype = Literal["int4", "int8", "fp8"]
Layers = Literal["all"] | Annotated[int, Field(ge=1, le=10_000, strict=True), Whole]
AllocatorSetting = Literal["default", "expandable_segments"]
Source = Literal["measured", "predicted"]

_T = TypeVar("_T", bound=BaseModel)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_MODEL = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())


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

    model_config = _MODEL

    model: Name = "mistral-7b-v0.3"
    attention: Name = "s_attn"
    kernel: Name = "sdpa"
    scope: Scope = "layer"
    # As ``alias`` it would be what type checkers take for the only name of the argument.
    pass_: Pass = Field(
        default="forward",
        validation_alias=AliasChoices("pass", "pass_"),
        serialization_alias="pass",
    )
    num_visual: Count
    num_text: Count = Field(default=64, title="Text tokens |T|")
    batch: Annotated[int, Field(ge=1, le=1_000_000, strict=True), Whole] = 1
    dtype: Dtype = Field(default="bfloat16", title="Data type")
    layout: str = "V,T"
    logits: Logits = Field(default="all", title="Logits on")
    loss_rows: LossRows = Field(default="text", title="Loss over")
    """Rows whose float32 logits, log-softmax and gradient a training step makes."""
    zero: Annotated[int, Field(ge=0, le=3, strict=True), Whole] = Field(
        default=0, title="ZeRO stage"
    )
    world_size: Annotated[int, Field(ge=1, le=1_000_000, strict=True), Whole] = 1
    sub_group_size: Annotated[int, Field(ge=1, le=10**12, strict=True), Whole] = SUB_GROUP_SIZE
    """Elements of a rank's share that ZeRO 3 steps at a time, at least; deepspeed's default."""
    accumulate: Annotated[int, Field(ge=1, le=1_000_000, strict=True), Whole] = Field(
        default=1, title="Micro-batches a step"
    )
    """Micro-batches of ``batch`` samples that one optimizer step adds up."""
    frozen: str | None = Field(default=None, title="Frozen parts")
    """Parts of scope ``lvlm`` that are not trained, such as ``decoder,tower``."""
    lora: str | None = Field(default=None, title="LoRA")
    """Adapters beside the decoder's frozen linear layers, ``alpha=32,r=16,targets=all-linear``."""
    weights_dtype: WeightsDtype | None = Field(default=None, title="Frozen weights in")
    """How the frozen matrices of the decoder's layers are held; None is the cell's dtype."""
    ulysses: Annotated[int, Field(ge=1, le=1_000_000, strict=True), Whole] = 1
    """Ranks that share one sequence (DeepSpeed-Ulysses)."""
    layer: Annotated[int, Field(ge=0, le=10_000, strict=True), Whole] | None = None
    """Which layer scope ``layer`` builds; None is the first with global attention."""
    fold: bool = False
    chunk: Positive | None = None
    skip_last: bool = False
    tiled: bool = False
    cache: bool = False
    """A prefill keeps the keys and values of every layer, as inference does."""
    checkpoint: bool = False
    checkpoint_every: Annotated[int, Field(ge=1, le=10_000, strict=True), Whole] | None = None
    offload: bool = False
    offload_optimizer: bool = False
    """The optimizer's states and its step on the host (ZeRO 1 to 3)."""
    visual_positions: bool = False
    tower: Name | None = None
    """The tower of scope ``lvlm``; None is what the model's config says."""
    compile: bool = False
    memory_cap: Annotated[int, Field(ge=1, strict=True)] | Name | None = None
    allocator: AllocatorSetting = "default"
    """The setting of CUDA's caching allocator that the process runs under."""
    weights: Name | None = None
    reduce: Name | None = Field(default=None, title="Reducer")
    """What makes |V'| visual tokens of |V| between the tower and the decoder."""
    settings: str | None = None
    """Options of the attention system and the reducer, ``at=3,keep=0.25``, sorted by name."""

    @model_validator(mode="before")
    @classmethod
    def _of_its_system(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        named = {kind: data.get(kind) for kind in KINDS}
        named["attention"] = named["attention"] or "s_attn"
        found = {**data}
        if data.get("settings") is not None:
            found["settings"] = canonical(data["settings"], named)
        known = entry("attention", named["attention"])
        # Of some systems no visual token reaches the LM head.
        if known is not None and known.logits == "text":
            if data.get("logits") not in (None, "text"):
                raise ValueError(
                    f"logits {data['logits']!r}: {known.name} has no visual rows in its LM head; "
                    "use 'text'"
                )
            found["logits"] = "text"
        return found

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
    def under_deepspeed(self) -> bool:
        """Whether its training step runs under deepspeed: on several ranks, or under ZeRO."""
        return self.world_size > 1 or self.zero > 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        return self._agreeing()

    def _agreeing(self) -> Self:
        if self.num_visual + self.num_text == 0:
            raise ValueError("num_visual and num_text are both 0: there is no token to compute")
        if self.scope != "layer" and self.pass_ == "train" and self.num_text == 0:
            raise ValueError("num_text 0: the loss of a training step needs at least 1 text token")
        if self.loss_rows == "all" and not self.optimizes:
            raise ValueError(
                "loss_rows all: only a train pass of scope decoder or lvlm has a loss"
            )
        if self.loss_rows == "all" and self.logits == "text":
            raise ValueError(
                "loss_rows all: needs logits 'all'; under 'text' the LM head has text rows alone"
            )
        if self.checkpoint_every is not None and not self.checkpoint:
            raise ValueError("checkpoint_every: needs checkpoint as well")
        if self.layer is not None and self.scope != "layer":
            raise ValueError(f"layer {self.layer}: only scope 'layer' builds a single layer")
        if self.tower is not None and self.scope != "lvlm":
            raise ValueError(f"tower {self.tower}: only scope 'lvlm' has a tower")
        if self.accumulate > 1 and not self.optimizes:
            raise ValueError(
                f"accumulate {self.accumulate}: only a train pass of scope decoder or lvlm ends "
                "in an optimizer step"
            )
        if self.frozen and not (self.optimizes and self.scope == "lvlm"):
            raise ValueError(f"frozen {self.frozen}: only training at scope lvlm has such parts")
        if self.cache and self.pass_ != "forward":
            raise ValueError(f"cache: a forward pass keeps keys and values, not {self.pass_}")
        if self.weights_dtype is not None:
            self._check_packed(self.weights_dtype)
        if self.lora is not None:
            self._check_lora()
        if self.sub_group_size != SUB_GROUP_SIZE and self.zero != 3:
            raise ValueError(f"sub_group_size {self.sub_group_size}: only ZeRO 3 has sub-groups")
        if self.offload_optimizer and not self.zero:
            raise ValueError("offload_optimizer: needs ZeRO; give --zero 1, 2 or 3")
        if self.world_size % self.ulysses:
            raise ValueError(
                f"ulysses {self.ulysses}: does not divide world_size {self.world_size}; the ranks "
                "that share a sequence are among those that share the states"
            )
        return self

    def _check_packed(self, scheme: str) -> None:
        if self.scope == "layer":
            raise ValueError(
                f"weights_dtype {scheme}: of a whole decoder; use scope decoder or lvlm"
            )
        if self.pass_ == "train" and self.lora is None:
            raise ValueError(f"weights_dtype {scheme}: such weights cannot be trained; add lora")
        if self.pass_ == "decode":
            raise ValueError(f"weights_dtype {scheme}: kernels of a decode step are not modelled")
        if self.under_deepspeed or self.ulysses > 1:
            raise ValueError(f"weights_dtype {scheme}: one process alone holds such weights here")
        if self.fold:
            raise ValueError(f"fold: needs the output projection as numbers, not as {scheme}")
        if self.dtype == "float64":
            raise ValueError(f"weights_dtype {scheme}: is widened to at most float32, not float64")

    def _check_lora(self) -> None:
        if not self.optimizes:
            raise ValueError("lora: only a train pass of scope decoder or lvlm trains adapters")
        if self.frozen:
            raise ValueError(f"frozen {self.frozen}: lora freezes all but its adapters by itself")
        if self.fold:
            raise ValueError("fold: sums the output projection itself, without a lora adapter")
        if self.visual_positions:
            raise ValueError("visual_positions: learnt ones are frozen under lora; leave one out")
        adapters = self.lora_adapters
        if adapters is not None and adapters.dtype and self.under_deepspeed:
            raise ValueError(
                f"lora dtype={adapters.dtype}: deepspeed holds every weight in the cell's dtype"
            )

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
        found = self.model_copy(update={"num_visual": num_visual})
        return found._agreeing()

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


OPTION_FLAGS = tuple(name for name, field in Cell.model_fields.items() if field.annotation is bool)
"""The on/off fields of a cell."""

PUBLIC_NAMES = {
    name: field.serialization_alias or name for name, field in Cell.model_fields.items()
}
"""The attributes of a cell and the names of its fields in documents (``pass`` of ``pass_``)."""

FIELDS = {PUBLIC_NAMES[name]: field for name, field in Cell.model_fields.items()}
"""The fields of a cell by their public names (``pass``, not ``pass_``)."""


def field_label(name: str) -> str:
    """How a field of a cell, by its public name, is called where people read it."""
    return FIELDS[name].title or name.replace("_", " ").capitalize()


class Protocol(BaseModel):
    """How a cell is measured. Not part of its key: it changes how sure a number is, no more."""

    model_config = _MODEL

    min_samples: Annotated[int, Field(ge=1, le=10_000, strict=True), Whole] = 10
    max_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """From the first warm iteration on."""
    max_prepare: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """Seconds that compilation, autotuning and plans may take before the first warm iteration."""
    precision: Annotated[float, Field(gt=0, lt=1)] | None = 0.01
    """Relative 95 % half-width of the median to reach; None takes ``min_samples`` and no more."""
    memory_limit: Positive | Annotated[int, Field(ge=1, strict=True)] | None = None
    """Bytes that the worker may allocate beyond what it holds once its imports are done."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    """Wall time after which a silent worker is ended and the cell recorded as ``timeout``."""
    iterations: Annotated[int, Field(ge=1, le=10_000, strict=True), Whole] | None = None
    """Run so many and no more, from the first on, whatever the rest asks: does the cell fit?"""
    emulate: Layers | None = None
    """Emulate one ZeRO-3 rank of the cell on one device: all layers run, or so many of them."""
    graph: bool | None = None
    """Replay a CUDA graph of the iteration too; None: of forward and decode cells under 20 ms."""


class Point(BaseModel):
    """A cell, whether to measure or predict it, on what, and how."""

    model_config = _MODEL

    cell: Cell
    source: Source
    device: Name
    protocol: Protocol = Protocol()
    calibration: Name | None = None
    """Predicted: a file of ``workbench calibrate``, or ``none``; without it a packaged one."""
    pictures: Pictures | None = None

    @property
    def ranks(self) -> int:
        """Processes that measure it together: one where a rank is emulated."""
        alone = self.source == "predicted" or self.protocol.emulate is not None
        return 1 if alone else self.cell.world_size

    @property
    def through_launcher(self) -> bool:
        """Whether ranks under deepspeed measure it, be it one: in processes of their own."""
        alone = self.source == "predicted" or self.protocol.emulate is not None
        return not alone and self.cell.under_deepspeed


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, int, float, dict)) else value


class Grid(BaseModel):
    """A product of axes: every combination becomes a cell.

    ``options`` are partial cells laid over each combination. ``options: [{attention: s_attn,
    kernel: eager}, {attention: d_attn, fold: true}]`` names systems that are no product of axes.
    """

    model_config = _MODEL

    source: Source = "measured"
    device: Name = "auto"
    """Measured: auto (CUDA where there is one), cpu, cuda, cuda:N. Predicted: a device entry."""
    visual: tuple[Count, ...] = Field(min_length=1)
    models: tuple[Name, ...] = ("mistral-7b-v0.3",)
    attentions: tuple[Name, ...] = ("s_attn",)
    kernels: tuple[Name, ...] = ("sdpa",)
    scopes: tuple[Scope, ...] = ("layer",)
    passes: tuple[Pass, ...] = ("forward",)
    text: tuple[Count, ...] = (64,)
    batches: tuple[Positive, ...] = (1,)
    dtypes: tuple[Dtype, ...] = ("bfloat16",)
    options: tuple[dict[str, Any], ...] = ({},)
    protocol: Protocol = Protocol()
    calibration: Name | None = None
    """Predicted: a file of ``workbench calibrate``, or ``none``; without it a packaged one."""

    @model_validator(mode="before")
    @classmethod
    def _axes_by_the_cells_names(cls, data: Any) -> Any:
        return _in_plural(data) if isinstance(data, dict) else data

    @field_validator(*AXES, mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return _as_tuple(value)

    _points: tuple[Point, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _cells_are_valid(self) -> Self:
        if not all(self.axes()):
            raise ValueError("an axis is empty: every axis needs at least one value")
        _check_size(self)
        with without_collector():
            self._points = tuple(self._made())
        return self

    def axes(self) -> tuple[tuple[Any, ...], ...]:
        """The values of each of AXES."""
        return tuple(getattr(self, name) for name in AXES)

    def points(self) -> tuple[Point, ...]:
        """Every point, |V| innermost, in the order that the axes are written."""
        return self._points

    def _made(self) -> Iterator[Point]:
        names = ("model", "scope", "pass", "dtype", "num_text", "batch", "attention", "kernel")
        *outer, visual = self.axes()
        for *values, options in product(*outer):
            named = dict(zip(names, values, strict=True))
            first = Cell.model_validate({**named, **options, "num_visual": visual[0]})
            for size in visual:
                yield Point(
                    cell=first.at(size),
                    source=self.source,
                    device=self.device,
                    protocol=self.protocol,
                    calibration=self.calibration,
                )


def _in_plural(fields: dict[str, Any]) -> dict[str, Any]:
    """A grid's document whose axes go by the names of AXES; ValueError for one given twice."""
    twice = [name for name, axis in SINGULAR.items() if name in fields and axis in fields]
    if twice:
        raise ValueError(f"{twice[0]}: given beside {SINGULAR[twice[0]]}; leave one out")
    return {SINGULAR.get(name, name): value for name, value in fields.items()}


def _check_size(*grids: Any) -> None:
    """Raise ValueError where grids, or the documents of grids, would make too many cells."""
    total = 0
    for grid in grids:
        fields = vars(grid) if isinstance(grid, Grid) else {}
        fields = _in_plural(grid) if isinstance(grid, dict) else fields
        values = [fields.get(name) for name in AXES]
        total += math.prod(len(v) if isinstance(v, (list, tuple)) else 1 for v in values)
    if total > MAX_POINTS:
        raise ValueError(f"the axes make {total:,} cells; a sweep has at most {MAX_POINTS:,}")


class Sweep(BaseModel):
    """A named union of grids. Runs of the same name in one store and environment are continued."""

    model_config = _MODEL

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    grids: tuple[Grid, ...] = Field(min_length=1)

    @field_validator("grids", mode="before")
    @classmethod
    def _few_enough(cls, value: Any) -> Any:
        _check_size(*(value if isinstance(value, (list, tuple)) else ()))
        return value

    def points(self) -> list[Point]:
        """The points of all grids, each (key, source, device) once, in order."""
        seen: dict[tuple[str, str, str], Point] = {}
        for grid in self.grids:
            for point in grid.points():
                seen.setdefault((point.cell.key, point.source, point.device), point)
        return list(seen.values())

    def replace(self, **changes: Any) -> Self:
        """A copy with ``changes``, validated again."""
        return type(self).model_validate({**self.model_dump(by_alias=True), **changes})


def first_error(error: ValidationError) -> str:
    """What pydantic says of a document, in one line: the field, its value, what is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    value = first.get("input")
    shown = "" if isinstance(value, (dict, list)) else f" {value!r:.80}"
    message = first["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    return f"{where}{shown}: {message}" + (f" (and {more} more)" if more else "")


def make_cell(**fields: Any) -> Cell:
    """A Cell from public field names; raises RequestError, one line, where a value is wrong."""
    return _made(Cell, fields)


def make_point(**fields: Any) -> Point:
    """A Point from public field names; raises RequestError, one line, where a value is wrong."""
    return _made(Point, fields)


def make_protocol(**fields: Any) -> Protocol:
    """A Protocol; raises RequestError, one line, where a value is wrong."""
    return _made(Protocol, fields)


def _made(kind: type[_T], fields: dict[str, Any]) -> _T:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        text = first_error(error).removeprefix("the document: ")
        raise RequestError(text.removeprefix("protocol.")) from None


def geometric(start: int, stop: int, factor: int = 2) -> tuple[int, ...]:
    """``start``, ``start * factor``, … up to and including ``stop``."""
    if start < 1 or factor < 2:
        raise ValueError("start must be at least 1 and factor at least 2")
    values = []
    while start <= stop:
        values.append(start)
        start *= factor
    return tuple(values)
