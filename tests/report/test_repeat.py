"""What a report says to run again runs as it is printed, and makes the same cells."""

import json
import re
import shlex
from contextlib import chdir
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.small import small_lvlm, small_model
from workbench.cli import app
from workbench.commands.options import give_all_options
from workbench.inputs.sweep_file import load_sweep
from workbench.lvlm.pictures import fields_of
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.report.command import repeat
from workbench.report.contents import contents
from workbench.report.write import write_report
from workbench.store import Store
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Environment, Record

give_all_options()

ONCE = Protocol(iterations=2)
"""A trial, as a search for a threshold makes them."""
RANK = {
    "scope": "decoder",
    "num_visual": 40,
    "num_text": 8,
    "zero": 3,
    "world_size": 4,
    "logits": "text",
    "checkpoint": True,
    "pass": "train",
    "kernel": "eager",
    "dtype": "float32",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the commands run in, with a picture."""
    Image.new("RGB", (112, 56)).save(tmp_path / "wide.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(folder: Path) -> tuple[dict, Pictures]:
    model = small_lvlm("qwen2_5_vl", folder)
    shown = Pictures(images=("wide.png",), min_pixels=3136)
    cell = {"model": model, "scope": "lvlm", "kernel": "eager", "dtype": "float32", "num_text": 4}
    return {**cell, **fields_of(model, shown, "V,T")}, shown


def campaign(path: Path, records: list[Record]) -> Path:
    """A store as a script fills it: no run of it is a sweep."""
    with Store.open(path, "w") as store:
        store.add_many(store.begin_run("campaign", {"by": "hand"}, Environment()), records)
    return path


def run(command: str) -> str:
    words = shlex.split(command)
    assert words[0] == "workbench"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_of_a_record_makes_its_very_cell(here: Path) -> None:
    model = small_model("mistral", here)
    cell, shown = picture(here)
    records = [
        predict(make_cell(model=model, **RANK), "h100-80gb", emulate=1),
        predict(make_cell(model=model, **RANK), "h100-80gb", emulate="all"),
        predict(make_cell(**cell), "h100-80gb", pictures=shown),
        predict(make_cell(model=model, num_visual=16, compile=False), "h100-80gb"),
        predict(make_cell(model=model, num_visual=16), "h100-80gb", "none"),
        predict(
            make_cell(
                model=model,
                num_visual=16,
                reduce="pool",
                scope="decoder",
                settings="side=3",
                cache_dtype="fp8",
                kernel="eager",
            ),
            "h100-80gb",
        ),
        predict(
            make_cell(
                model=model, num_visual=16, scope="decoder", lora="r=4", **{"pass": "train"}
            ),
            "h100-80gb",
        ),
    ]
    for record in records:
        found = json.loads(run(f"{repeat(record)} --json"))
        assert found["key"] == record.cell.key
        assert found["metrics"] == record.metrics
        assert found["details"].get("pictures") == record.details.get("pictures")


def test_what_was_measured_by_hand_is_repeated_by_what_its_report_prints(here: Path) -> None:
    model = small_model("mistral", here)
    cell, shown = picture(here)
    records = [
        measure(make_cell(model=model, **RANK), "cpu", ONCE.model_copy(update={"emulate": "all"})),
        measure(
            make_cell(model=model, num_visual=24, kernel="eager", dtype="float32"), "cpu", ONCE
        ),
        measure(make_cell(**cell), "cpu", ONCE, pictures=shown),
    ]
    store = campaign(here / "campaign.db", records)
    files = write_report(store, here / "out", static_images=False)
    found = contents(store, options=["--no-images"])
    (spec,) = files.specs
    points = load_sweep(spec).points()
    assert {p.cell.key for p in points} == {r.cell.key for r in records[:2]}
    assert {p.protocol.emulate for p in points} == {"all", None}
    commands = dict.fromkeys(command for _, command in found.reproduce)
    text = files.reproduce.read_text(encoding="utf-8")
    for command in commands:
        assert command in text
        if command.startswith("workbench measure"):
            assert json.loads(run(f"{command} --max-seconds 2 --json"))["key"] == cell_key(cell)
        else:
            run(command.replace("data/", "out/data/"))
    with Store.open(here / "again.db") as again:
        assert {r.cell.key for r in again.records()} == {r.cell.key for r in records[:2]}
        assert {r.status for r in again.records()} == {"ok"}
    assert (here / "again" / "report.html").is_file()


def test_the_command_of_a_report_makes_that_very_report(here: Path) -> None:
    model = small_model("mistral", here)
    fields = {"model": model, "kernel": "eager", "num_visual": 24}
    records = [
        predict(make_cell(**fields, attention=name), "h100-80gb") for name in ("s_attn", "d_attn")
    ]
    campaign(here / "again.db", records)
    note, case = here / "words.md", f"model={model}, visual=1k, gpus=1,price=2.5€"
    note.write_text("Ours: **it's** `so`.\n", encoding="utf-8")
    run(f"workbench report again.db --note words.md --case {shlex.quote(case)} --no-images -o out")
    out = here / "out"
    (out / "again.db").symlink_to(here / "again.db")
    text = (out / "REPRODUCE.md").read_text(encoding="utf-8")
    (command,) = (line for line in text.splitlines() if line.startswith("workbench report"))
    with chdir(out):
        run(command)
    once, again = (pages(folder) for folder in (out, out / "again"))
    assert once == again
    assert "2.5€" in once["REPRODUCE.md"]


def pages(folder: Path) -> dict[str, str]:
    """The texts of a report, without the line that says when it was written."""
    names = ("report.html", "report.md", "REPRODUCE.md", "data/note.md")
    stamp = re.compile(r"20\d\d-\d\d-\d\dT[\d:]+\+00:00")
    return {name: stamp.sub("", (folder / name).read_text(encoding="utf-8")) for name in names}


def cell_key(fields: dict) -> str:
    return make_cell(**fields).key
