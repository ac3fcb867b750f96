"""What the README and the package say of the reference records is what the records hold."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from tests import pictures, reference
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.calibration import PACKAGED, Calibration, calibration_for
from workbench.vocabulary.record import Record


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return reference.read_records()


def test_the_readme_states_what_the_records_hold(records) -> None:
    text = reference.README.read_text(encoding="utf-8")
    assert text == reference.with_block(text, records), "make reference"
    rows = {row[0]: row[1:] for row in reference.table(records)}
    assert rows["largest \\|V\\| of a training step"][0] == "10,887"
    first = re.search(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert first is not None
    assert reference.ROOT / first[1] == pictures.FOLDER / pictures.FIGURE


def test_every_picture_of_the_pages_is_one_that_is_made() -> None:
    pages = [reference.README, *(reference.ROOT / "docs").rglob("*.md")]
    shown = {
        Path(path).name
        for page in pages
        for path in re.findall(r"\]\(([^)]*[.]png)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {pictures.FIGURE, pictures.REPORT, *pictures.PAGES}
    assert shown == {path.name for path in pictures.FOLDER.iterdir()}
    for name in shown:
        assert (pictures.FOLDER / name).read_bytes().startswith(b"\x89PNG")


def test_thresholds_are_those_of_their_trials(records) -> None:
    document = json.loads((reference.FOLDER / "thresholds.json").read_text(encoding="utf-8"))
    tops = [reference.largest(records, system).cell.num_visual for system in reference.SYSTEMS]
    found = [
        document[name]["max_visual"]
        for name in ("s_attn eager", "s_attn flash", "d_attn", "d_attn chunked")
    ]
    assert tops == found


def test_the_calibrations_are_of_these_records(records) -> None:
    found = calibration_for("h100-80gb")
    assert found is not None
    digest = hashlib.sha256(reference.STORE.read_bytes()).hexdigest()
    assert [(s.file, s.sha256) for s in found.stores] == [("records.db", digest)]
    assert Calibration.read(reference.FOLDER / "calibration.json") == found
    assert found.alone == reference.ALONE
    alone = found.held_out_by_kind["alone"]
    assert alone["training step"].num_cells == 8
    assert alone["training step"].worst < 0.10
    assert alone["prefill"].worst < 0.10
    there = calibration_for(reference.CARRIED_TO)
    assert there is not None
    assert there.carried_from == found.device
    ratio = there.bytes_per_s["operators"].value / found.bytes_per_s["operators"].value
    assert ratio == pytest.approx(4.8 / 3.35)
    assert {path.name for path in PACKAGED.glob("*.json")} == {
        "h100-80gb.json",
        "h200-141gb.json",
    }


def test_the_method_page_states_the_errors_of_the_calibration() -> None:
    found = calibration_for("h100-80gb")
    assert found is not None
    page = reference.METHOD.read_text(encoding="utf-8")
    assert page == reference.with_errors(page, found), "make reference"


def test_steps_and_prefills_are_predicted_within_a_tenth(records) -> None:
    """Without any option, as a user asks."""
    kinds = (reference.STEP, reference.PREFILL)
    timed = [
        found
        for kind in kinds
        for system in reference.SYSTEMS
        for size in (9_000, 74_000)
        if (found := reference.fastest(records, kind, system, size)) is not None
    ]
    assert len(timed) == 11
    for record in timed:
        predicted = predict(record.cell, "h100-80gb")
        error = predicted.metrics["time_s"] / record.metrics["time_s"] - 1
        assert abs(error) < 0.10, record.cell.title
        (flag,) = [flag for flag in predicted.flags if flag.startswith("calibrated:")]
        assert "held-out error of " in flag
        assert f"a fit of the run {reference.ALONE} alone" in flag


def test_the_scripts_of_the_committed_report_are_those_that_it_allows_itself() -> None:
    """A page that was changed by hand would draw nothing."""
    page = (reference.FOLDER / "report" / "report.html").read_text(encoding="utf-8")
    allowed = re.findall(r"'sha256-([^']+)'", page.partition("style-src")[0])
    scripts = re.findall(r"<script(?![^>]*application/json)[^>]*>(.*?)</script>", page, re.S)
    made = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert made
    assert set(made) <= set(allowed)
