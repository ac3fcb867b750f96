"""The options that describe a cell, once for every command that takes one."""

import inspect
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from workbench.commands.completion import completes_field
from workbench.commands.faults import all_faults, every_fault
from workbench.commands.limit_options import (
    MaxFrames,
    MaxPixels,
    MaxVideoTokens,
    MinPixels,
    PanAndScan,
)
from workbench.commands.numbers import METAVAR, whole, whole_option
from workbench.vocabulary.errors import Faults, RequestError

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
    def sentence(self) -> str:
        """The help with its default, as a sentence; a value that it begins with stays as it is."""
        text = self.help.replace("`", "")
        if not self.help.startswith("`"):
            text = text[:1].upper() + text[1:]
        default = f"  [default: {self.default}]" if isinstance(self.default, str) else ""
        return f"{text.removesuffix('.')}.{default}"

    @property
    def parameter(self) -> inspect.Parameter:
        """The option as a parameter of a command; what is not given stays None or False."""
        how: dict[str, Any] = {}
        if self.kind is int:
            how = {"parser": _number, "metavar": METAVAR}
        elif self.kind is str:
            how = {"autocompletion": completes_field(self.field)}
        elif self.kind is not bool:
            how = {"metavar": "NAME=VALUE"}
        option = typer.Option(self.flag, help=self.sentence, show_default=False, **how)
        kind: Any = self.kind if self.kind is bool or self.default is None else self.kind | None
        default = False if self.kind is bool else None
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if self.default is None else default,
            annotation=Annotated[kind, option],
        )


def _number(text: str) -> int | str:
    """The number, or a text that is none: the cell refuses it, with all else that is wrong."""
    try:
        return whole(text)
    except typer.BadParameter:
        return text


def cell_options() -> dict[str, CellOption]:
    """The options of a cell by the field they set, as the fields' descriptions say; and --preset.

    pydantic is imported here, and so only by commands that take a cell.
    """
    from workbench.vocabulary.cell import DESCRIPTIONS, FIELDS, option_of, value_type
    from workbench.vocabulary.presets import PRESETS

    presets = f"fields to start from: {', '.join(PRESETS)}; other options go over them"
    options = {"preset": CellOption("--preset", str, "preset", presets, "none")}
    for name, description in DESCRIPTIONS.items():
        field, kind = FIELDS[name], value_type(name)
        plain = f"{field.default:_}" if type(field.default) is int else str(field.default)
        default: str | bool | None = description.unset or plain
        if kind is bool:
            default = False
        elif field.is_required() or description.unset == "off":
            default = None if field.is_required() else False
        repeated: Any = list[str] if name == "settings" else kind
        options[name] = CellOption(option_of(name), repeated, name, description.help, default)
    return options


_OPTIONS: dict[str, Callable[[], list[CellOption]]] = {}
"""The options of a cell by the command that takes them."""
_PENDING: dict[str, list[Callable[[], None]]] = {}
"""Commands that get their options when they are asked for: to make them takes as long as all else
that ``--help`` of the program does."""


def give_options(words: Iterable[str]) -> None:
    """Give the commands among the words of a command line the options of their cell."""
    for word in words:
        for give in _PENDING.pop(word, ()):
            give()


def give_all_options() -> None:
    """Give every command its options, for whoever looks at them all."""
    give_options(list(_PENDING))


def takes_cell_or_pictures(command: Command) -> Command:
    """Give ``command`` the cell's options; it gets the validated Cell as ``cell``.

    Files, or images and frames of a size, may stand for ``--visual``: they come as ``pictures``,
    else None.
    """
    extra = {
        "image": Annotated[
            list[Path] | None,
            typer.Option(metavar="FILE", help="An image file to show; may be repeated."),
        ],
        "video": Annotated[Path | None, typer.Option(help="A video file to show.")],
        "fps": Annotated[
            float | None, typer.Option(help="Frames sampled a second of video.", show_default="1")
        ],
        "resolution": Annotated[
            str | None,
            typer.Option(metavar="WIDTHxHEIGHT", help="A size in place of files: random pixels."),
        ],
        "images": Annotated[
            int | None, whole_option("Images of the resolution.", show_default="1")
        ],
        "frames": Annotated[
            int | None, whole_option("Sampled frames: makes a resolution a video.")
        ],
        "min_pixels": MinPixels,
        "max_pixels": MaxPixels,
        "max_frames": MaxFrames,
        "max_video_tokens": MaxVideoTokens,
        "pan_and_scan": PanAndScan,
    }

    def with_pictures(**values: Any) -> None:
        pictures, faults = None, Faults()
        place = _place(command.__name__, values)
        with every_fault(_fields(_stated(values, options())), values, *place):
            with faults:
                pictures = _pictures(**{name: values[name] for name in extra})
                if pictures is not None:
                    values |= _counted(values, pictures)
                elif values["visual"] is None:
                    raise RequestError(f"visual: give --visual N, or at scope lvlm {SHOWN_BY}")
            own = {name: value for name, value in values.items() if name not in extra}
            with faults:
                fixed = {"num_visual": 1} if faults else {}
                with_cell = _with_cell(own, options(), fixed)
            faults.raise_all()
            command(**with_cell, pictures=pictures)

    @cache
    def options() -> list[CellOption]:
        of_cell = cell_options()
        of_visual = of_cell["num_visual"]._replace(default="counted from what is shown")
        return [of_visual, *(each for name, each in of_cell.items() if name != "num_visual")]

    files = [
        inspect.Parameter(
            name, _KEYWORD, default=False if kind is PanAndScan else None, annotation=kind
        )
        for name, kind in extra.items()
    ]
    return _given_options(command, with_pictures, options, files)


SHOWN_BY = "--image, --video or --resolution"


def _pictures(
    image: list[Path] | None,
    video: Path | None,
    fps: float | None,
    resolution: str | None,
    images: int | None,
    frames: int | None,
    **limits: int | bool | None,
) -> "Pictures | None":
    from workbench.vocabulary.pictures import make_pictures

    faults = Faults()
    if fps is not None and video is None and frames is None:
        faults.add(f"fps {fps:g}: only a video is sampled; give --video, or --frames")
    for name, number in (("images", images), ("frames", frames)):
        if number is not None and resolution is None:
            faults.add(f"{name} {number}: of which size? give --resolution WIDTHxHEIGHT as well")
    if images is not None and frames is not None:
        faults.add(f"images {images}: a video of {frames} frames is shown; leave one out")
    fields = {
        name: value for name, value in limits.items() if value is not None and value is not False
    }
    shown = bool(image) or video is not None or resolution is not None
    if not shown:
        for name, value in fields.items():
            faults.add(f"{name} {value}: only what is shown has limits; give {SHOWN_BY}")
    faults.raise_all()
    if not shown:
        return None
    sizes = {"resolution": resolution, "count": images, "frames": frames, "fps": fps}
    return make_pictures(
        {"count": "images"},
        images=[str(path.absolute()) for path in image or []],
        video=None if video is None else str(video.absolute()),
        **{name: value for name, value in sizes.items() if value is not None},
        **fields,
    )


def _counted(values: dict[str, Any], pictures: "Pictures") -> dict[str, Any]:
    """``visual`` and ``layout`` as what is shown makes them."""
    which = "resolution" if pictures.resolution else "image" if pictures.images else "video"
    if values["visual"] is not None:
        raise RequestError(f"visual {values['visual']}: {which} says how many; leave one out")
    names = ("preset", "model", "scope", "layout", "tower")
    cell = _cell({**{name: values[name] for name in names}, "num_visual": 1})
    if cell.scope != "lvlm":
        raise RequestError(
            f"{which}: scope {cell.scope} has no vision tower; give --scope lvlm, or count with "
            "'workbench tokens' and give --visual"
        )
    from workbench.lvlm.pictures import fields_of

    fields = fields_of(cell.model, pictures, cell.layout, cell.tower)
    return {"visual": fields["num_visual"], "layout": fields["layout"]}


def takes_cell_of_any_size(command: Command) -> Command:
    """The same without files and ``--visual``, for what is asked of every |V|."""

    def of_any_size(**values: Any) -> None:
        place = _place(command.__name__, values)
        with every_fault(_fields(_stated(values, options())), values, *place):
            command(**_with_cell(values, options(), {"num_visual": 1}))

    @cache
    def options() -> list[CellOption]:
        return [each for name, each in cell_options().items() if name != "num_visual"]

    return _given_options(command, of_any_size, options, [])


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _given_options(
    command: Command,
    with_cell: Command,
    options: Callable[[], list[CellOption]],
    files: list[inspect.Parameter],
) -> Command:
    """``with_cell`` under the name and help of ``command``; ``give_options`` adds the options."""
    own = [
        parameter.replace(kind=_KEYWORD)
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name not in ("cell", "pictures")
    ]
    with_cell.__name__, with_cell.__doc__ = command.__name__, command.__doc__

    def give(parameters: list[inspect.Parameter]) -> None:
        with_cell.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_cell.__annotations__ = {p.name: p.annotation for p in parameters}

    give(own)
    name = command.__name__.replace("_", "-")
    _OPTIONS[name] = options
    _PENDING.setdefault(name, []).append(
        lambda: give([*(option.parameter for option in options()), *own, *files])
    )
    return with_cell


def wrong_values(name: str, values: dict[str, Any]) -> list[str]:
    """What is wrong with the values of a command's cell; nothing for one that takes none."""
    if name not in _OPTIONS:
        return []
    stated = _stated(values, _OPTIONS[name]())
    faults = Faults()
    with faults:
        # Of |V| files may speak, or nothing has to.
        _cell({"num_visual": 1, **{k: v for k, v in stated.items() if v is not None}})
    return list(all_faults(faults.lines, _fields(stated), values, *_place(name, values)))


def cell_of_values(name: str, values: dict[str, Any]) -> "Cell":
    """The cell that a command's values make; RequestError with all that is wrong with it."""
    return _cell(_stated(values, _OPTIONS[name]()))


def _place(name: str, values: dict[str, Any]) -> tuple[str | None, bool]:
    """The device that a command was given, and whether it measures there."""
    return values.get("device"), name == "measure" or bool(values.get("measure"))


def _stated(values: dict[str, Any], options: list[CellOption]) -> dict[str, Any]:
    """The fields of a cell among a command's values."""
    return {option.field: values[option.name] for option in options}


def _with_cell(
    values: dict[str, Any], options: list[CellOption], fixed: dict[str, Any]
) -> dict[str, Any]:
    """A command's values with the cell in place of its options."""
    fields = _stated(values, options)
    names = {option.name for option in options}
    rest = {name: value for name, value in values.items() if name not in names}
    return {**rest, "cell": _cell({**fields, **fixed})}


def _cell(stated: dict[str, Any]) -> "Cell":
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.fields import make_model
    from workbench.vocabulary.presets import PRESETS
    from workbench.vocabulary.rules import with_wrong

    faults = Faults()
    fields, context = _fields(stated), None
    if "preset" in fields:
        context = with_wrong(Cell.model_fields)  # It would have set some of them.
        with faults:
            _ = PRESETS[fields.pop("preset")]
    with faults:
        cell = make_model(Cell, fields, _option_of, context)
    faults.raise_all()
    return cell


def _option_of(place: tuple[int | str, ...]) -> str:
    from workbench.vocabulary.cell import option_of

    return option_of(str(place[0])) if place else ""


def _fields(stated: dict[str, Any]) -> dict[str, Any]:
    """The fields that a command sets, its preset's among them; a preset that is unknown stays."""
    from workbench.vocabulary.presets import PRESETS

    # What was not given is left to the cell, whose defaults may depend on other fields.
    fields = {k: v for k, v in stated.items() if v is not None and v is not False}
    if fields.get("preset") in PRESETS:
        fields = {**PRESETS[fields.pop("preset")], **fields}
    return fields
