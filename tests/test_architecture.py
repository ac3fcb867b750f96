"""The plan of the house names every room, and no other; the repository's own files are whole."""

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import slow_names

ROOT = Path(__file__).parents[1]
PLAN = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`((?:workbench|probes|reports|docs|tests|app\.py)[^`\s]*)`", PLAN))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def rooms() -> set[str]:
    """The packages and data folders of the workbench, and the modules that stand at its door."""
    package = ROOT / "workbench"
    folders = {
        f"{path.relative_to(ROOT)}/"
        for path in package.rglob("*")
        if path.is_dir()
        and path.name != "__pycache__"
        and any(child.is_file() for child in path.iterdir())
    }
    modules = {
        f"workbench/{path.name}" for path in package.glob("*.py") if not path.stem.startswith("__")
    }
    return folders | modules


def test_the_plan_names_every_room() -> None:
    assert sorted(rooms() - NAMED) == []


def test_every_room_that_it_names_is_there() -> None:
    assert sorted(name for name in NAMED if not (ROOT / name).exists()) == []
    assert len(NAMED) > 40


def test_the_packages_of_a_half_stand_in_its_chapter() -> None:
    """As import-linter has them: what must not need torch stands below what does."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {each["name"]: each for each in project["tool"]["importlinter"]["contracts"]}
    run, _, below = PLAN.partition("## Keep")
    data = contracts["The data half never imports torch, nor the torch half"]
    for module in data["source_modules"]:
        path = module.replace(".", "/")
        assert f"`{path}/`" in below or f"`{path}.py`" in below, module
    for module in data["forbidden_modules"]:
        if module.startswith("workbench."):
            assert f"`{module.replace('.', '/')}/`" in run, module


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name
)
def test_what_the_host_reads_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_hosted_ci_runs_the_same_targets() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    asked = {line.removeprefix("make ") for line in lines if line.startswith("make ")}
    assert {"check", "test"} <= asked <= TARGETS
    assert ".ci/run" in lines


def test_slow_tests_are_named_as_they_are() -> None:
    """A name that is no test's leaves the test that it was meant for to every change."""
    unknown = []
    for name in slow_names():
        file, _, function = name.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""
        if not text or (function and f"\ndef {function}(" not in text):
            unknown.append(name)
    assert unknown == []


def test_a_commit_is_checked_as_the_code_is() -> None:
    hooks = [
        hook["id"]
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    assert {
        "ruff",
        "ruff-format",
        "check-merge-conflict",
        "check-added-large-files",
        "codespell",
    } <= set(hooks)


def test_the_pages_for_contributors_name_targets_that_exist() -> None:
    for page in ("CONTRIBUTING.md", "README.md", ".github/PULL_REQUEST_TEMPLATE.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        asked = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
        assert asked <= TARGETS, page
