"""What is fuzzed: readers of files and lines from outside, each with inputs to begin from."""

import io
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.server import Target
from tests.small import FAMILY_NAMES, small_model
from tests.vocabulary.test_devices import CARD
from workbench.commands.ask import answer_all
from workbench.inputs.sweep_file import load_sweep
from workbench.probe.predicting.predict import predict
from workbench.store import Store
from workbench.store.merge import merge
from workbench.store.notes import Note
from workbench.vocabulary.calibration import Calibration, packaged
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.devices import DEVICES, load_device_file
from workbench.vocabulary.record import Environment, Record

CELL = {"num_visual": 8, "num_text": 8, "dtype": "float32"}
CORPUS = Path(__file__).with_name("corpus")
"""Inputs that once went wrong, by target."""


def config(content: bytes, folder: Path) -> None:
    """A model's folder."""
    (folder / "config.json").write_bytes(content)
    predict(make_cell(model=str(folder), **CELL), "h100-80gb")


def sweep(content: bytes, folder: Path) -> None:
    """A sweep as YAML."""
    (folder / "sweep.yaml").write_bytes(content)
    load_sweep(folder / "sweep.yaml").points()


def card(content: bytes, folder: Path) -> None:
    """A user's card as YAML."""
    (folder / "card.yaml").write_bytes(content)
    load_device_file(folder / "card.yaml")


def store(content: bytes, folder: Path) -> None:
    """A store; whatever it says, merging it says no worse."""
    path = folder / "s.db"
    path.write_bytes(content)
    try:
        with Store.open(path) as found:
            found.runs(), found.frame(), found.records(), found.notes(), found.check()
    finally:
        merge([path], folder / "out.db")


def calibration(content: bytes, folder: Path) -> None:
    """A calibration, and a prediction with it."""
    path = folder / "c.json"
    path.write_bytes(content)
    device = Calibration.read(path).device
    predict(make_cell(num_visual=8), device, str(path))


def ask(content: bytes, folder: Path) -> None:
    """Lines of questions: each has an answer, none of which is an error that nobody foresaw."""
    answers: list[dict] = []
    answer_all(io.BytesIO(content), answers.append)
    for answer in answers:
        error = str(answer.get("error", ""))
        assert not error.partition(":")[0].endswith(("Error", "Exception")), error


TARGETS: dict[str, Target] = {
    found.__name__: found for found in (config, sweep, card, store, calibration, ask)
}


@cache
def seeds(name: str) -> tuple[bytes, ...]:
    """Inputs that are as they should be, and those of the corpus."""
    with TemporaryDirectory() as folder:
        found = _sound(name, Path(folder))
    return (*found, *(path.read_bytes() for path in sorted((CORPUS / name).glob("*"))))


def _sound(name: str, folder: Path) -> list[bytes]:
    if name == "config":
        names = [small_model(family, folder) for family in FAMILY_NAMES]
        for model in names:  # What a family loads, no child then has to load again.
            predict(make_cell(model=model, **CELL), "h100-80gb")
        return [Path(model, "config.json").read_bytes() for model in names]
    if name == "sweep":
        one = b"visual: [8, 16]\nmodels: [mistral-7b-v0.3]\noptions: [{fold: true}, {}]\n"
        return [one, b"grids:\n- {visual: 3, passes: [train], protocol: {min_samples: 2}}\n"]
    if name == "card":
        return [CARD.encode()]
    if name == "store":
        return [_store(folder / "s.db")]
    if name == "calibration":
        paths = [path for path in map(packaged, DEVICES) if path is not None]
        return [path.read_bytes() for path in paths] or [b"{}"]
    question = {"do": "predict", "cell": CELL, "device": "h100-80gb"}
    return [json.dumps(question).encode() + b"\n", b'{"do": "names"}\n{"do": "unit"}\n']


def _store(path: Path) -> bytes:
    with Store.open(path, "w") as found:
        run = found.begin_run("demo", {"name": "demo"}, Environment(host="here"))
        for visual in range(1, 13):
            found.add(
                run,
                Record(
                    cell=make_cell(num_visual=visual),
                    source="measured",
                    device="cpu",
                    status="ok",
                    metrics={"time_s": 0.5, "flops": 2**70},
                    samples={"time_s": [0.5] * 40},
                    details={"capacity_bytes": 5},
                ),
            )
        found.write_note((run, "", "", ""), "a note", ["tag"])
        assert Note("a note", ("tag",)) in found.notes().values()
    return path.read_bytes()
