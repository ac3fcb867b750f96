"""``limit``: the OOM threshold of a cell, predicted or measured."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.commands import show
from workbench.commands.answer import kind_words
from workbench.commands.cells import (
    PLACES,
    TIMEOUT_S,
    AsJson,
    Emulate,
    defer_imports_for,
)
from workbench.commands.checks import check_store, layers_of
from workbench.commands.completion import completes
from workbench.commands.known import Known, known_of
from workbench.commands.limit_options import (
    MaxFrames,
    MaxPixels,
    MaxVideoTokens,
    MinPixels,
    limits_of,
)
from workbench.commands.numbers import whole_option
from workbench.commands.options import takes_cell_of_any_size
from workbench.interface import PREDICTED_ON
from workbench.probe.predicting import SOLVE
from workbench.vocabulary.errors import Faults
from workbench.vocabulary.units import quantity

if TYPE_CHECKING:
    from workbench.probe.predicting.limit import Limit
    from workbench.probe.workers.measured_limit import MeasuredLimit
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.fields import Layers

FITS = {
    "batch": "a batch of {:,} fits",
    "images": "{:,} images fit",
    "pixels": "max_pixels of {:,} fits",
    "frames": "{:,} frames fit",
    "minutes": "{:,.4g} minutes fit",
}


@takes_cell_of_any_size
def limit(
    cell: "Cell",
    device: Annotated[
        str | None,
        typer.Option(
            help="A device entry or a YAML file of one; with --measure auto, cpu or cuda:N.",
            show_default=f"{PREDICTED_ON}, auto with --measure",
            autocompletion=completes("device", also=PLACES),
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run both ends here, each in a fresh process.")
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(help="A store of measured thresholds; --measure keeps its trials there."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="With --measure: seconds until a silent trial is ended.")
    ] = TIMEOUT_S,
    emulate: Emulate = None,
    solve: Annotated[
        str,
        typer.Option(
            help="Solve for visual, batch, images, pixels, frames or minutes.",
            autocompletion=completes(also=SOLVE),
        ),
    ] = "visual",
    visual: Annotated[
        int | None,
        whole_option("Visual tokens, where the batch is solved for."),
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(
            help="A vision front end.",
            show_default="the model's own",
            autocompletion=completes("vision"),
        ),
    ] = None,
    resolution: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Size of the video's frames.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames sampled a second of video.", show_default="1")
    ] = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    max_frames: MaxFrames = None,
    max_video_tokens: MaxVideoTokens = None,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="A whole forward keeps no keys and values."),
    ] = False,
    json_: AsJson = False,
) -> None:
    """The largest |V|, batch or video that fits a device, within 1 %, and what stops it."""
    place = device or ("auto" if measure else PREDICTED_ON)
    limits = limits_of(min_pixels, max_pixels, max_frames, max_video_tokens, False)
    with show.waiting("measuring both ends" if measure else "predicting"):
        if not measure:
            defer_imports_for(cell)
        cell, notes = _as_inference(cell, no_cache)
        faults = Faults()
        from workbench.lvlm.loss import loss_flags
        from workbench.probe.predicting.limit import predicted_limit
        from workbench.probe.predicting.solve import Question, check_question, solved

        if store is not None and not measure:
            with faults:
                check_store(store)  # One that cannot be read is refused before a prediction.
        question = Question(solve, visual, vision, resolution, fps, limits)
        with faults:
            check_question(cell, question)
        if solve != "visual":
            with faults:
                _check_predicted(solve, store, emulate, measure)
        layers: Layers | None = None
        with faults:
            layers = layers_of(emulate)
        faults.raise_all()
        notes += loss_flags(cell)
        if solve != "visual":
            answer = solved(cell, place, question)
        elif measure:
            settings = {"timeout_s": timeout, "emulate": layers}
            bracket: Limit = _measured(cell, place, store, settings)
            earlier = None
        else:
            bracket = predicted_limit(cell, place, layers)
            earlier = known_of(cell, bracket.device, store)
    if solve != "visual":
        _tell(answer, json_)
    elif json_:
        show.emit(bracket.document() | ({} if earlier is None else earlier.document()))
    else:
        _tell_bracket(bracket, earlier)
    for note in notes:  # Below the answer, with which a reader begins.
        show.note(note)


def _check_predicted(solve: str, store: Path | None, emulate: str | None, measure: bool) -> None:
    """Raise RequestError for what is of thresholds of |V| alone."""
    faults = Faults()
    if store is not None:
        faults.add(f"store {str(store)!r}: holds thresholds of |V| alone")
    if emulate is not None:
        faults.add(f"emulate {emulate}: is for |V|; leave --solve {solve} out")
    if measure:
        faults.add(f"solve {solve}: is predicted only; leave --measure out")
    faults.raise_all()


def _tell_bracket(bracket: "Limit", earlier: "Known | None") -> None:
    if bracket.max_visual is None:
        fewest = "nothing fits" if not bracket.fails_at else "no size was found that fits"
        fit = f"{fewest}; {bracket.fails_at:,} visual tokens do not"
    else:
        beyond = "" if bracket.fails_at is None else f", {bracket.fails_at:,} do not"
        fit = f"{bracket.max_visual:,} visual tokens fit{beyond}"
    show.say(fit if earlier is None else f"{fit}; {earlier.error}")
    room = quantity(bracket.capacity_bytes, "B")
    show.say(
        f"{bracket.source} on {bracket.device}, of {room}: most of it is"
        f" {kind_words(bracket.stopped_by)} there"
    )
    for line in () if earlier is None else earlier.lines():
        show.say(line)
    for flag in getattr(bracket, "flags", ()):
        show.say(f"flag  {flag}")


def _as_inference(cell: "Cell", no_cache: bool) -> tuple["Cell", list[str]]:
    """The prefill of a whole model with its cache kept, as who generates needs it, and notes."""
    if cell.pass_ != "forward" or cell.scope == "layer" or cell.cache or no_cache:
        return cell, []
    from workbench.lvlm.attention import system_of

    if not system_of(cell).keeps_cache:
        words = f"what a prefill of {cell.attention} keeps is not modelled; none is kept"
        return cell, [f"cache: {words}"]
    words = "keys and values are kept, as inference does; --no-cache leaves them out"
    return cell.replace(cache=True), [f"cache: {words}"]


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.emit(answer)
        return
    solve = answer["solve"]
    largest, fails = answer[f"max_{solve}"], answer["fails_at"]
    beyond = "" if fails is None else f", {fails:,.12g} do not"
    show.say(
        "nothing fits, not even one" if largest is None else FITS[solve].format(largest) + beyond
    )
    if largest is not None and "tokens_each" in answer:
        show.say(
            f"{answer['max_visual']:,} visual tokens: {_made_of(answer)} ({answer['vision']})"
        )
    room = quantity(answer["capacity_bytes"], "B")
    show.say(
        f"{answer['source']} on {answer['device']}, of {room}: most of it is"
        f" {kind_words(answer['stopped_by'])} there"
    )
    for note in answer.get("notes", ()):
        show.say(f"note: {note}")
    for flag in answer["flags"]:
        show.say(f"flag  {flag}")


def _made_of(answer: dict[str, Any]) -> str:
    """What the visual tokens of an answer are made of."""
    size, each = answer["resolution"], f"{answer['tokens_each']:,}"
    if answer["solve"] == "pixels":
        return f"an image of the shape of {size} that is scaled down to so many pixels"
    if answer["solve"] == "images":
        return f"{answer['max_images']:,} images of {size}, {each} each"
    return f"{answer['max_frames']:,} frames of {size}, {each} each step"


def _measured(
    cell: "Cell", device: str, path: Path | None, settings: dict[str, Any]
) -> "MeasuredLimit":
    from workbench.probe.machine.environment import environment, resolve_device
    from workbench.probe.workers.measured_limit import measured_limit, trials_in
    from workbench.store import Store
    from workbench.vocabulary.protocol import make_protocol
    from workbench.vocabulary.record import Record

    protocol = make_protocol(**settings)
    place = resolve_device(device)
    # A cell's key does not know whether a rank is emulated, and by how many layers: its run does.
    emulated = "" if protocol.emulate is None else f"-emulate-{protocol.emulate}"
    name = f"limit{emulated}"
    with nullcontext() if path is None else Store.open(path, "w") as target:
        run = None if target is None else target.begin_run(name, {}, environment(place))

        def keep(record: Record) -> None:
            seconds = record.metrics.get("time_s")
            took = "" if seconds is None else f", {show.amount(seconds, 's')} an iteration"
            show.note(f"|V| = {record.cell.num_visual:,}: {record.status}{took}")
            if target is not None and run is not None:
                target.add(run, record)

        trials = {} if target is None or run is None else trials_in(target.records(run), cell)
        if trials:
            show.note(f"{len(trials)} sizes of this cell are stored; they are not run again")
        return measured_limit(cell, place, protocol, keep, trials)
