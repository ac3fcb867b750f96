"""Every command that a page shows for pasting runs in a test; none is left out unsaid."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.outputs import PAGES, PROGRAM, ROOT, beginning, fill_checkout, outputs, run

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

DRY = ("sweep probes/default.py",)
"""Measure for minutes: here they are read, planned and forecast, and ``tests/sweep`` runs such."""
ELSEWHERE = {
    "make": "tests/test_packaging.py::test_make_installs_once",
    "make install": "tests/test_packaging.py::test_make_installs_once",
    "make sweep": "tests/test_packaging.py::test_make_sweep_reports_what_there_is",
    "make test": "tests/test_packaging.py::test_ci_runs_the_readme_s_commands",
    "make check": "tests/test_packaging.py::test_ci_runs_the_readme_s_commands",
    "dashboard ": "tests/dashboard/test_guard.py"
    "::test_the_server_answers_its_own_pages_only_and_calls_nobody",
    "limit --measure ": "tests/probe/workers/test_measured_limit.py"
    "::test_both_ends_are_run_and_the_prediction_is_near",
    "sweep probes/reference.py ": "tests/test_campaign.py"
    "::test_the_campaign_stops_between_cells_and_goes_on",
    "sweep probes/reference_traces.py ": "tests/test_campaign.py"
    "::test_every_kind_of_cell_is_there_in_the_order_of_its_worth",
    "sweep probes/reference_far.py ": "tests/test_campaign.py"
    "::test_the_far_goal_times_its_second_iteration",
    "sweep sweep.yaml --store sweep.db --engine slurm ": "tests/sweep/test_slurm.py"
    "::test_a_killed_job_a_time_out_a_lost_node_and_a_killed_coordinator",
    "jobs --store sweep.db": "tests/sweep/test_slurm.py"
    "::test_a_killed_job_a_time_out_a_lost_node_and_a_killed_coordinator",
}
"""Commands that serve until they are ended, or need a card, a cluster or minutes: the test that
runs what they do."""
OTHERS = (
    "git clone ",
    "python -m venv ",
    "python -m pytest ",
    ".venv/bin/pip ",
    ".venv/bin/pre-commit ",
    "ssh ",
    "sbatch ",
)
"""Programs that are not of this project."""


def lines(page: Path) -> list[str]:
    """The lines of a page's blocks without a language, comments gone, continued ones joined."""
    text = "".join(
        body for language, body in BLOCK.findall(page.read_text("utf-8")) if not language
    )
    joined = re.sub(r"\\\n\s*", "", text)
    every = (re.sub(r"\s{2,}# .*|\s{3,}#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in every if line]


def kind(line: str) -> str:
    """Where a line is run: ``here``, ``dry``, ``elsewhere``, ``other``; or nowhere."""
    words = PROGRAM.sub("", line)
    if any(words == start or words.startswith((f"{start.strip()} ",)) for start in ELSEWHERE):
        return "elsewhere"
    if words == line:
        return "other" if line.startswith(OTHERS) else ""
    return "dry" if words.startswith(DRY) else "here"


SHOWN = list(dict.fromkeys(line for page in PAGES for line in lines(page)))
RUN = [PROGRAM.sub("", line) for line in SHOWN if kind(line) in ("here", "dry")]


def test_every_command_of_the_tour_is_followed_by_what_it_prints() -> None:
    tour = ROOT / "docs" / "tour.md"
    assert [PROGRAM.sub("", line) for line in lines(tour)] == list(outputs(tour))


def test_every_line_is_run_somewhere() -> None:
    assert [line for line in SHOWN if not kind(line)] == []
    assert len(RUN) > 15


@pytest.mark.parametrize("start", ELSEWHERE)
def test_what_runs_elsewhere_is_shown_and_its_test_is_there(start: str) -> None:
    assert any(PROGRAM.sub("", line).startswith(start) for line in SHOWN), "no page shows it"
    path, _, name = ELSEWHERE[start].partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder as a reader's: probes, the shipped records, and stores that sweeps have left."""
    fill_checkout(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", RUN)
def test_the_commands_of_the_docs_run(command: str, checkout: Path) -> None:
    words = [*command.split(), *(["--dry-run"] if command.startswith(DRY) else [])]
    before = set(checkout.rglob("*"))
    done = run(words, checkout)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        assert outputs(page).get(command) in (None, beginning(done.stdout)), (
            f"{page}: other output"
        )
    assert len(done.stdout.splitlines()) > 1 or set(checkout.rglob("*")) > before


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_the_pages_runs(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text("utf-8")
    script = "\n".join(body for language, body in BLOCK.findall(text) if language == "python")
    assert script
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok ")
