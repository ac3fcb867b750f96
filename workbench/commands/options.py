"""The options that describe a cell, once for every command that takes one."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from workbench.commands.limit_options import (
    MaxFrames,
    MaxPixels,
    MaxVideoTokens,
    MinPixels,
    PanAndScan,
)
from workbench.commands.numbers import METAVAR, whole
from workbench.inputs.files import MAX_DIGITS
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.pictures import Pictures


Command = Callable[..., None]


class CellOption(NamedTuple):
    """An option of the command line and the field of the cell that it sets."""

    flag: str
    kind: type
    field: str
    help: str
    default: str | bool | None = False
    """The cell's own default, in words; False is off, None is a must."""

    @property
    def name(self) -> str:
        """The name of the command's parameter: ``pass`` is a keyword."""
        return self.flag.removeprefix("--").replace("-", "_").replace("pass", "pass_")

    @property
    def parameter(self) -> inspect.Parameter:
        """The option as a parameter of a command; what is not given stays None or False."""
        shown = self.default if isinstance(self.default, str) else False
        number: dict[str, Any] = {"parser": whole, "metavar": METAVAR} if self.kind is int else {}
        option = typer.Option(self.flag, help=self.help, show_default=shown, **number)
        kind: Any = self.kind if self.kind is bool or self.default is None else self.kind | None
        default = False if self.kind is bool else None
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if self.default is None else default,
            annotation=Annotated[kind, option],
        )


VISUAL = CellOption("--visual", int, "num_visual", "Number of visual tokens, |V|.", None)
CELL_OPTIONS = (
    CellOption(
        "--preset", str, "preset", "Fields to start from: paper-stage-1, -2 or -3.", "none"
    ),
    CellOption("--model", str, "model", "A model name, a hub id or a folder.", "mistral-7b-v0.3"),
    CellOption("--attention", str, "attention", "An attention system.", "s_attn"),
    CellOption("--kernel", str, "kernel", "An attention kernel.", "sdpa"),
    CellOption("--scope", str, "scope", "layer, decoder or lvlm.", "layer"),
    CellOption("--pass", str, "pass", "forward, train or decode.", "forward"),
    CellOption("--text", int, "num_text", "Number of text tokens, |T|.", "64"),
    CellOption("--batch", int, "batch", "Samples in an iteration.", "1"),
    CellOption("--dtype", str, "dtype", "float64, float32, bfloat16 or float16.", "bfloat16"),
    CellOption("--layout", str, "layout", "Where images stand: V,T or T,V,T …", "V,T"),
    CellOption("--logits", str, "logits", "Rows of the LM head: all or text.", "all"),
    CellOption(
        "--loss-rows", str, "loss_rows", "Rows of the loss in training: text or all.", "text"
    ),
    CellOption("--zero", int, "zero", "DeepSpeed ZeRO stage, 0 to 3.", "0"),
    CellOption("--world-size", int, "world_size", "GPUs that share the states.", "1"),
    CellOption(
        "--sub-group-size",
        int,
        "sub_group_size",
        "Elements that ZeRO 3 steps at a time.",
        "1000000000",
    ),
    CellOption("--accumulate", int, "accumulate", "Micro-batches of an optimizer step.", "1"),
    CellOption("--frozen", str, "frozen", "Parts not trained: decoder,tower.", "none"),
    CellOption("--lora", str, "lora", "Train adapters: r=16,alpha=32,targets=all-linear.", "none"),
    CellOption(
        "--weights-dtype", str, "weights_dtype", "Frozen weights: int4, int8, fp8.", "the dtype"
    ),
    CellOption(
        "--optimizer", str, "optimizer", "What a training step ends in: adamw8bit, …", "adamw"
    ),
    CellOption(
        "--master-weights", str, "master_weights", "Of bfloat16: float32 or bfloat16.", "float32"
    ),
    CellOption("--offload-optimizer", bool, "offload_optimizer", "AdamW on the host (ZeRO)."),
    CellOption("--ulysses", int, "ulysses", "GPUs that share one sequence.", "1"),
    CellOption("--layer", int, "layer", "Layer of scope layer.", "first with global attention"),
    CellOption("--fold", bool, "fold", "D-Attn: output projection folded over query groups."),
    CellOption("--chunk", int, "chunk", "D-Attn: visual stream in chunks of this many tokens."),
    CellOption("--skip-last", bool, "skip_last", "D-Attn: no visual output of the last layer."),
    CellOption("--tiled", bool, "tiled", "MLP and logits in tiles."),
    CellOption("--cache", bool, "cache", "A forward pass keeps keys and values."),
    CellOption(
        "--cache-dtype", str, "cache_dtype", "What is kept in: bfloat16, fp8, int8.", "the dtype"
    ),
    CellOption("--checkpoint", bool, "checkpoint", "Gradient checkpointing of every layer."),
    CellOption("--checkpoint-every", int, "checkpoint_every", "… of every so many layers."),
    CellOption("--offload", bool, "offload", "Checkpointed activations on the host."),
    CellOption("--visual-positions", bool, "visual_positions", "Learnable visual positions."),
    CellOption("--tower", str, "tower", "Vision tower: siglip is the paper's.", "the model's own"),
    CellOption("--compile", bool, "compile", "Through torch.compile."),
    CellOption("--memory-cap", str, "memory_cap", "Emulate a card: bytes, or a device name."),
    CellOption(
        "--allocator", str, "allocator", "CUDA's: default or expandable_segments.", "default"
    ),
    CellOption("--weights", str, "weights", "A hub id or a folder to load.", "random"),
    CellOption("--reduce", str, "reduce", "Reducer between tower and decoder.", "none"),
    CellOption("--set", list[str], "settings", "A setting, name=value; may be repeated.", "none"),
)


def takes_cell_or_pictures(command: Command) -> Command:
    """Give ``command`` the cell's options; it gets the validated Cell as ``cell``.

    Real files may stand for ``--visual``: they come as ``pictures``, else None.
    """
    shown = VISUAL._replace(default="counted from --image or --video")
    with_cell = _with_options(command, (shown, *CELL_OPTIONS), {})
    extra = {
        "image": Annotated[
            list[Path] | None, typer.Option(help="An image file to show; may be repeated.")
        ],
        "video": Annotated[Path | None, typer.Option(help="A video file to show.")],
        "fps": Annotated[
            float | None, typer.Option(help="Frames sampled a second of video.", show_default="1")
        ],
        "min_pixels": MinPixels,
        "max_pixels": MaxPixels,
        "max_frames": MaxFrames,
        "max_video_tokens": MaxVideoTokens,
        "pan_and_scan": PanAndScan,
    }
    own = [p for p in inspect.signature(with_cell).parameters.values() if p.name != "pictures"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *own,
        *(
            inspect.Parameter(n, keyword, default=False if a is PanAndScan else None, annotation=a)
            for n, a in extra.items()
        ),
    ]

    @wraps(with_cell)
    def with_pictures(**values: Any) -> None:
        pictures = _pictures(**{name: values.pop(name) for name in extra})
        if pictures is not None:
            values |= _counted(values, pictures)
        elif values["visual"] is None:
            raise RequestError("visual: give --visual N, or at scope lvlm --image or --video")
        with_cell(**values, pictures=pictures)

    with_pictures.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_pictures.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_pictures


def _pictures(
    image: list[Path] | None, video: Path | None, fps: float | None, **limits: int | bool | None
) -> "Pictures | None":
    from workbench.vocabulary.pictures import make_pictures

    if fps is not None and video is None:
        raise RequestError(f"fps {fps}: only a video is sampled; give --video as well")
    asked = {
        name: value for name, value in limits.items() if value is not None and value is not False
    }
    if not image and video is None:
        for name, value in asked.items():
            raise RequestError(f"{name} {value}: only files have limits; give --image or --video")
        return None
    files = [str(path.absolute()) for path in image or []]
    rate = {} if fps is None else {"fps": fps}
    shown = None if video is None else str(video.absolute())
    return make_pictures(images=files, video=shown, **rate, **asked)


def _counted(values: dict[str, Any], pictures: "Pictures") -> dict[str, Any]:
    """``visual`` and ``layout`` as the files make them."""
    which = "image" if pictures.images else "video"
    if values["visual"] is not None:
        raise RequestError(f"visual {values['visual']}: {which} says how many; leave one out")
    named = ("preset", "model", "scope", "layout", "tower")
    cell = _cell({**{name: values[name] for name in named}, "num_visual": 1})
    if cell.scope != "lvlm":
        raise RequestError(f"{which}: scope {cell.scope} has no vision tower; give --scope lvlm")
    from workbench.lvlm.pictures import fields_of

    found = fields_of(cell.model, pictures, cell.layout, cell.tower)
    return {"visual": found["num_visual"], "layout": found["layout"]}


def takes_cell_of_any_size(command: Command) -> Command:
    """The same without files and ``--visual``, for what is asked of every |V|."""
    return _with_options(command, CELL_OPTIONS, {VISUAL.field: 1})


def _with_options(
    command: Command, options: tuple[CellOption, ...], fixed: dict[str, Any]
) -> Command:
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "cell"]

    @wraps(command)
    def with_options(**values: Any) -> None:
        given = {option.field: values.pop(option.name) for option in options}
        command(cell=_cell({**given, **fixed}), **values)

    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    parameters = [*(option.parameter for option in options), *keyword_only]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options


def _cell(given: dict[str, Any]) -> "Cell":
    from workbench.vocabulary.cell import make_cell

    # What was not given is left to the cell, whose defaults may depend on other fields.
    fields = {k: v for k, v in given.items() if v is not None and v is not False}
    if (preset := fields.pop("preset", None)) is not None:
        from workbench.vocabulary.presets import PRESETS

        fields = {**PRESETS[preset], **fields}
    cap = fields.get("memory_cap")
    if isinstance(cap, str) and cap.isdecimal() and len(cap) <= MAX_DIGITS:
        fields["memory_cap"] = int(cap)
    return make_cell(**fields)
