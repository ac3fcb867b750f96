"""What the planner asks and how it reads the answers. No Streamlit here, and no torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from workbench.analysis.trust import trust
from workbench.telling.sentences import ratio_words
from workbench.telling.text import listed
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.systems import entry, label
from workbench.vocabulary.units import quantity

Answer = Mapping[str, Any]
Ask = Callable[[str, Cell], Answer]
"""What to do (predict, limit) and the cell to the answer's document."""

CHUNK = 4096
MOST_GPUS = 1024


FUSED = ("sdpa", "flex")
"""Kernels that are tried in turn where the reader leaves the choice: not every one of them serves
every model."""


class System(NamedTuple):
    """An attention system with a kernel."""

    attention: str
    kernel: str
    """``fused`` stands for the first of FUSED that serves the cell."""


def systems(attentions: list[str], kernel: str) -> list[System]:
    """Each system with the chosen kernel, S-Attn with the eager one too: both baselines."""
    columns = []
    for attention in attentions:
        if attention == "s_attn" and kernel != "eager":
            columns.append(System(attention, "eager"))
        columns.append(System(attention, kernel))
    return columns


def predicted(cell: Cell, system: System, ask: Ask) -> tuple[Cell, Answer]:
    """The cell under that system, and its prediction."""
    fields = {"attention": system.attention}
    system_entry = entry("attention", system.attention)
    if system_entry is not None and system_entry.logits == "text":
        fields["logits"] = "text"
    kernels = FUSED if system.kernel == "fused" else (system.kernel,)
    predictions = []
    for kernel in kernels:
        own = cell.replace(kernel=kernel, **fields)
        predictions.append((own, ask("predict", own)))
        if predictions[-1][1].get("status") != "unsupported":
            return predictions[-1]
    return predictions[0]


class Remedy(NamedTuple):
    """A change to a cell, in words."""

    words: str
    cell: Cell


def remedies(cell: Cell) -> Iterator[Remedy]:
    """Single changes that may let a cell fit, the cheapest first."""
    for words, change in _changes(cell):
        try:
            yield Remedy(words, cell.replace(**change))
        except ValueError:
            continue  # HiMix, for one, has no other logits.


def together(cell: Cell) -> Cell:
    """The cell with every change of ``remedies`` at once that does not rule out another."""
    for _, change in _changes(cell):
        try:
            cell = cell.replace(**change)
        except ValueError:
            continue
    return cell


def _changes(cell: Cell) -> Iterator[tuple[str, dict[str, Any]]]:
    train = cell.pass_ == "train"
    if cell.kernel == "eager":
        yield "a fused kernel (`--kernel sdpa`)", {"kernel": "sdpa"}
    if cell.logits == "all":
        yield "logits of text rows only (`--logits text`)", {"logits": "text"}
    if not cell.tiled:
        yield "MLP and logits in tiles (`--tiled`)", {"tiled": True}
    if train and not cell.checkpoint:
        yield "gradient checkpointing (`--checkpoint`)", {"checkpoint": True}
    if cell.chunk is None and cell.attention.startswith("d_attn"):
        yield f"visual stream in chunks (`--chunk {CHUNK}`)", {"chunk": CHUNK}
    if train and not cell.offload:
        words = "checkpoints on the host (`--checkpoint --offload`)"
        yield words, {"checkpoint": True, "offload": True}
    if cell.optimizes and not cell.offload_optimizer and cell.dtype in ("bfloat16", "float32"):
        stage = max(cell.zero, 2)
        words = f"AdamW's states and step on the host (`--zero {stage} --offload-optimizer`)"
        yield words, {"zero": stage, "offload_optimizer": True}


def generation(cell: Cell, answer: Answer, ask: Ask) -> str:
    """Of a prefill or a decode step and its prediction: the time to the first token, that of each
    token after it, and the batch that fits with such contexts; a line.
    """
    first = answer if cell.pass_ == "forward" else _asked(cell, ask, "forward")
    step = answer if cell.pass_ == "decode" else _asked(cell, ask, "decode")
    words = []
    seconds = first.get("metrics", {}).get("time_s")
    if seconds is not None:
        parts = first["details"].get("parts", {})
        before = sum(parts[part].get("time_s", 0.0) for part in parts if part != "decoder")
        split = f" (tower {quantity(before, 's')}, then the prefill)" if before else ""
        words.append(f"First token after {quantity(seconds, 's')}{split}")
    each = step.get("metrics", {}).get("time_s")
    if each is not None:
        words.append(f"then {quantity(each, 's')} a token")
    elif step.get("error"):
        words.append(f"time a token: {step['error']}")
    batch = ask("batch", _step(cell).replace(batch=1)) if is_answered(step) else {}
    if batch.get("max_batch") is not None:
        words.append(f"a decode batch of {batch['max_batch']:,} such contexts fits")
    elif batch:
        words.append(str(batch.get("error", "not one such context fits while tokens are decoded")))
    return "; ".join(words) or "Times are not known for this card"


def _step(cell: Cell) -> Cell:
    """One decoded token after the cell's tokens."""
    return cell.replace(pass_="decode", cache=False, tiled=False, logits="all")


def _asked(cell: Cell, ask: Ask, pass_: str) -> Answer:
    try:
        own = cell.replace(pass_="forward", logits="text") if pass_ == "forward" else _step(cell)
    except ValueError as error:
        return {"error": " ".join(str(error).split())}
    return ask("predict", own)


def is_answered(answer: Answer) -> bool:
    """Whether a prediction came, of a cell that fits or does not."""
    return answer.get("status") in ("ok", "oom")


def fits(answer: Answer) -> bool:
    """Whether a prediction fits its device."""
    return answer.get("status") == "ok"


def peak_of(answer: Answer) -> int | None:
    """Bytes of a prediction's peak."""
    peak = answer.get("metrics", {}).get("peak_bytes")
    return None if peak is None else int(peak)


def sharded(cell: Cell, ask: Ask) -> Remedy | None:
    """The fewest GPUs, doubling, over which ZeRO 3 makes a training step fit."""
    if not _shards(cell):
        return None
    gpus = 2 * max(cell.world_size, 1)
    if cell.zero != 3 and cell.world_size > 1:
        gpus = cell.world_size
    most = _most(cell)
    if gpus > MOST_GPUS or not fits(ask("predict", most)):
        return None
    while gpus < MOST_GPUS and not fits(ask("predict", most.replace(world_size=gpus))):
        gpus *= 2
    words = f"ZeRO 3 over {gpus:,} GPUs (`--zero 3 --world-size {gpus}`)"
    return Remedy(words, most.replace(world_size=gpus))


def _shards(cell: Cell) -> bool:
    plain = cell.weights_dtype is None and cell.optimizer == "adamw"
    return plain and cell.pass_ == "train" and cell.scope != "layer"


def _most(cell: Cell) -> Cell:
    return cell.replace(zero=3, world_size=MOST_GPUS)


def larger_cards(peak_bytes: int, device: str) -> list[str]:
    """Devices other than ``device`` whose memory holds so many bytes, the smallest first."""
    room = {n: d.capacity_bytes for n, d in DEVICES.items() if d.capacity_bytes and n != device}
    return sorted((n for n, size in room.items() if size >= peak_bytes), key=room.__getitem__)


def advice(cell: Cell, answer: Answer, ask: Ask) -> Iterator[str]:
    """What would have to change for a cell that does not fit, each change predicted to fit."""
    helps = False
    for remedy in remedies(cell):
        changed = ask("predict", remedy.cell)
        if fits(changed):
            helps = True
            yield f"{remedy.words}: peak {_gib(peak_of(changed))}"
    spread = sharded(cell, ask)
    if spread is not None:
        helps = True
        yield f"{spread.words}: peak {_gib(peak_of(ask('predict', spread.cell)))}"
    if not helps:
        everything = together(cell)
        changed = ask("predict", everything)
        if everything != cell and fits(changed):
            helps = True
            yield f"all memory options together (`{_options(everything)}`): peak " + _gib(
                peak_of(changed)
            )
        else:
            spread = sharded(everything, ask)
            if spread is not None:
                helps = True
                yield f"all memory options together and {spread.words}"
    peak = peak_of(answer)
    cards = [] if peak is None else larger_cards(peak, str(answer.get("device")))
    if cards:
        yield f"as it is on {' or '.join(f'`{name}`' for name in cards)}"
    elif not helps:
        yield "no option and no card here makes it fit: fewer visual tokens are needed"


def cheapest_helps(cell: Cell, ask: Ask) -> bool:
    """Whether the first of ``remedies`` lets the cell fit, which ``advice`` then begins with."""
    cheapest = next(remedies(cell), None)
    return cheapest is not None and fits(ask("predict", cheapest.cell))


def asked_first(cell: Cell) -> list[Cell]:
    """The cells that all of ``advice`` asks about: they can be asked about at once."""
    cells = [remedy.cell for remedy in remedies(cell)]
    return [_most(cell), *cells] if _shards(cell) else cells


def _gib(size: int | None) -> str:
    return "n/a" if size is None else f"{size / 2**30:,.1f} GiB"


def _options(cell: Cell) -> str:
    words = []
    for name in (
        "kernel",
        "logits",
        "tiled",
        "checkpoint",
        "offload",
        "chunk",
        "zero",
        "offload_optimizer",
    ):
        value, option = getattr(cell, name), name.replace("_", "-")
        if name == "kernel" or value != Cell.model_fields[name].default:
            words.append(f"--{option}" if value is True else f"--{option} {value}")
    return " ".join(words)


def cost(seconds: float | None, price: float | None, gpus: int, count: int) -> float | None:
    """Price of ``count`` iterations on ``gpus`` cards at ``price`` an hour of one."""
    if seconds is None or price is None:
        return None
    return seconds / 3600 * price * gpus * count


class Price(NamedTuple):
    """What a card costs for an hour."""

    amount: float
    currency: str


def best_of(answers: Sequence[tuple[Cell, Answer]]) -> str | None:
    """The quickest system that fits beside every other one; None where no answer is one."""
    candidates = [(cell, answer) for cell, answer in answers if is_answered(answer)]
    fitting = [
        (cell, answer)
        for cell, answer in candidates
        if fits(answer) and answer["metrics"].get("time_s") is not None
    ]
    if not candidates:
        return None
    if not fitting:
        return "None of these systems fits; below each stands what would make it fit."
    cell, best = min(fitting, key=lambda each: float(each[1]["metrics"]["time_s"]))
    took, capacity = float(best["metrics"]["time_s"]), best["details"].get("capacity_bytes")
    room = f" of {_gib(capacity)}" if capacity else ""
    others, tight = [], []
    for other, answer in candidates:
        if other is cell:
            continue
        seconds = answer["metrics"].get("time_s")
        if not fits(answer):
            tight.append(f"{_name(other)} does not fit")
        elif seconds is not None:
            others.append(f"{ratio_words(float(seconds) / took)}× as fast as {_name(other)}")
    rest = (f": {listed(others)}" if others else "") + "".join(f"; {each}" for each in tight)
    return (
        f"{_name(cell)} is the fastest that fits, {quantity(took, 's')} an iteration and"
        f" {_gib(peak_of(best))}{room}{rest} (predicted for {best.get('device')})."
    )


def given_up(answers: Sequence[tuple[Cell, Answer]]) -> str | None:
    """What the systems that fit give up against S-Attn; None where that is nothing."""
    systems = dict.fromkeys(cell.attention for cell, answer in answers if fits(answer))
    losses = [
        f"{own.label} gives up {own.loss}"
        for name in systems
        if (own := entry("attention", name)) is not None and own.loss
    ]
    return f"{'; '.join(losses)}. Quality is not predicted." if losses else None


def _name(cell: Cell) -> str:
    return f"{label('attention', cell.attention)} · {cell.kernel}"


def certainty(flags: Sequence[str]) -> list[str]:
    """What an answer's flags say of its seconds, in plain words, each line once."""
    lines = [trust(str(flag)) for flag in flags]
    return list(dict.fromkeys(line for line in lines if line))


def certainty_of_all(answers: Sequence[tuple[Cell, Answer]]) -> list[str]:
    """What ``certainty`` says of several answers, each line once; one that is not of all of them
    names the systems that it is of.
    """
    names: dict[str, list[str]] = {}
    for cell, answer in answers:
        for line in certainty(answer["flags"]):
            names.setdefault(line, []).append(_name(cell))
    return [
        line if len(of) == len(answers) else f"{line} (of {listed(of)})"
        for line, of in names.items()
    ]
