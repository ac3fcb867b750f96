"""The documentation against the code: no name missing, none stale; examples and links work."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer

import workbench
from workbench.cli import app
from workbench.commands import reference_page
from workbench.commands.options import give_all_options
from workbench.inputs.sweep_file import load_sweep
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.models import MODELS
from workbench.visual import VISIONS
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.record import Status

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
EXTEND = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
EVERYWHERE = {"--help", "--json"}


def commands() -> dict[str, Any]:
    """Command objects by name; typer carries its own copy of click, so no type fits them all."""
    give_all_options()
    group: Any = typer.main.get_command(app)
    return {name: command for name, command in group.commands.items() if not command.hidden}


def options(command: Any) -> list[list[str]]:
    """The words of every option that only some commands have, such as ``-o`` and ``--output``."""
    found = [p.opts for p in command.params if p.param_type_name == "option" and not p.hidden]
    return [words for words in found if not EVERYWHERE & set(words)]


def option_words(command: Any) -> set[str]:
    return EVERYWHERE.union(*options(command))


def table(title: str) -> dict[str, str]:
    """First column (back-quoted) to whole row of the table under a heading of the reference."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    assert section, f"the reference has no section {title}"
    rows = re.findall(r"^\| `([^`]+)` \|.*$", section[1], re.MULTILINE)
    return dict(zip(rows, section[1].split("\n| `")[1:], strict=True))


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Commands", commands()),
        ("Python interface", workbench.__all__),
        ("Models", MODELS),
        ("Attention systems", SYSTEMS),
        ("Kernels", KERNELS),
        ("Vision front ends", VISIONS),
        ("Devices", DEVICES),
        ("Metrics", METRICS),
        ("Statuses", [str(status) for status in Status]),
    ],
)
def test_the_reference_has_every_name_and_no_other(title: str, names: Iterable[str]) -> None:
    assert sorted(table(title)) == sorted(names)


@pytest.mark.parametrize("command", commands())
def test_every_option_is_in_the_reference(command: str) -> None:
    known = " ".join([table("Commands")[command], *table("Options of a cell")])
    missing = [
        words
        for words in options(commands()[command])
        if not any(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", known) for word in words)
    ]
    assert missing == []


def test_every_option_of_a_cell_exists() -> None:
    assert set(table("Options of a cell")) <= option_words(commands()["predict"])


@pytest.mark.parametrize("name", reference_page.PAGES)
def test_tables_are_the_code_s(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert reference_page.PAGES[name](text) == text


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)
def test_links_and_pictures_are_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), f"{document.name} points at {target}"


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)
def test_commands_in_the_pages_exist(document: Path) -> None:
    """Every ``workbench …`` in a page is a command with options it has; every make a target."""
    text = document.read_text(encoding="utf-8")
    code = "\n".join([*blocks(text, ""), *re.findall(r"`([^`\n]+)`", text)])
    for line in re.findall(
        r"(?<!from )(?<![\w./])(?:[.]venv/bin/)?workbench ([a-z][a-z-]*(?: [^\n`']*)?)", code
    ):
        name, *words = re.sub(r"\[([^]]*)\]", r"\1", line.split("#")[0]).split()
        words = [option for word in words for option in word.split("|")]
        assert name in commands(), f"{document.name}: workbench {name}"
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= option_words(commands()[name]), f"{document.name}: workbench {line}"
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= set(targets)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_examples_of_extending_run(tmp_path: Path) -> None:
    script = "\n".join(blocks(EXTEND, "python"))
    assert script
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_yaml_examples_load(tmp_path: Path) -> None:
    path, counts = tmp_path / "fold.yaml", []
    for found in blocks(EXTEND, "yaml"):
        path.write_text(found)
        counts.append(len(load_sweep(path).points()))
    assert counts == [21, 2]


def test_the_readme_begins_with_two_commands_and_a_picture() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = blocks(readme, "")[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == [
        "make sweep",
        "make test",
    ]
    assert "](docs/pictures/dashboard.png)" in readme
