"""What a fresh machine meets: dependencies, pins, the Makefile, the files of a release."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import grimp
import pytest
import yaml
from packaging.requirements import Requirement

import workbench
from tests.conftest import slow_names

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in {
        "": PROJECT["dependencies"],
        **PROJECT["optional-dependencies"],
    }.items()
}
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
PINNED = {re.sub("[-_.]+", "-", name).lower(): version for name, version in PINS.items()}
IMPORT_NAMES = {
    "pyyaml": "yaml",
    "nvidia-ml-py": "pynvml",
    "pillow": "PIL",
    "markdown-it-py": "markdown_it",
    "python-pptx": "pptx",
}
BROUGHT_ALONG = {
    "numpy",
    "pydantic_core",
    "click",
    "safetensors",
    "huggingface_hub",
    "choreographer",  # kaleido, whose browser it starts.
}
"""What a requirement of ours cannot be without."""
OPTIONAL = {
    "deepspeed",
    "peft",
    "bitsandbytes",
    "fla",
    "flash_attn",
    "flash_attn_interface",
    "timm",
}
"""What is used where somebody installed it."""
DATA_HALF = ("store", "analysis", "figures", "report", "dashboard")
TORCH_HALF = ("lvlm", "probe")


def imports_of(*extras: str) -> set[str]:
    names = {r.name.lower() for extra in ("", *extras) for r in EXTRAS[extra]}
    return {IMPORT_NAMES.get(name, name) for name in names} - {"visual-token-workbench"}


@pytest.mark.parametrize(
    "requirement",
    [r for found in EXTRAS.values() for r in found if r.name != "visual-token-workbench"],
    ids=str,
)
def test_every_requirement_has_a_pin_within_its_range(requirement: Requirement) -> None:
    assert requirement.specifier, "an honest range has a lower end"
    assert requirement.specifier.contains(PINNED[requirement.name.lower()])


def test_torch_is_pinned_without_a_build() -> None:
    """The same pin gives a CUDA build on a GPU node and a CPU build where that is all."""
    assert PINNED["torch"] == "2.13.0"


def test_each_half_imports_only_what_its_extra_installs() -> None:
    graph = grimp.build_graph(
        "workbench",
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    ours = {module for module in graph.modules if module.split(".")[0] == "workbench"}
    for halves, extras in ((TORCH_HALF, ("probe",)), (DATA_HALF, ("report", "dashboard"))):
        modules = {m for m in ours if m.split(".")[1:2] and m.split(".")[1].startswith(halves)}
        found = {
            external.split(".")[0]
            for module in modules
            for external in graph.find_modules_directly_imported_by(module)
        }
        foreign = found - sys.stdlib_module_names - {"workbench"}
        assert foreign <= imports_of(*extras) | BROUGHT_ALONG | OPTIONAL


def test_the_version_is_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == workbench.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {workbench.__version__}" in changelog


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_data_files_are_inside_the_package() -> None:
    vocabulary = Path(workbench.__file__).parent / "vocabulary"
    assert all((vocabulary / name).is_file() for name in ("devices.yaml", "systems.yaml"))


Make = Callable[..., subprocess.CompletedProcess[str]]

STAND_IN = """#!/bin/sh
# Takes the place of python3 on a fresh machine: "-c" asks its version, "-m venv" makes .venv.
echo "$@" >> calls
case "$2" in
    venv) {venv} ;;
    pip) ;;
    *) exit {version} ;;
esac
"""


def fresh(
    folder: Path, venv: str = "mkdir -p .venv/bin && cp python .venv/bin/", version: int = 0
) -> Make:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).write_text((ROOT / name).read_text())
    python = folder / "python"
    python.write_text(STAND_IN.format(venv=venv, version=version))
    python.chmod(0o755)

    def make(*goals: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--no-print-directory", f"PYTHON={python}", *goals],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )

    return make


def test_make_installs_once(tmp_path: Path) -> None:
    make = fresh(tmp_path)
    assert make().returncode == 0
    calls = (tmp_path / "calls").read_text()
    assert "--constraint constraints.txt" in calls
    assert ".[all,dev]" in calls
    assert "--target .venv/towers torchvision timm" in calls
    assert make().returncode == 0
    assert make("install").returncode == 0
    assert (tmp_path / "calls").read_text() == calls
    with (tmp_path / "constraints.txt").open("a") as constraints:
        constraints.write("# another pin\n")
    assert make().returncode == 0
    assert (tmp_path / "calls").read_text() != calls


@pytest.mark.parametrize(("swept", "reported"), [(0, True), (1, True), (2, False), (130, False)])
def test_make_sweep_reports_what_there_is(tmp_path: Path, swept: int, reported: bool) -> None:
    make = fresh(tmp_path)
    assert make().returncode == 0
    program = tmp_path / ".venv" / "bin" / "workbench"
    program.write_text(f'#!/bin/sh\necho "$@" >> calls\ntest "$1" != sweep || exit {swept}\n')
    program.chmod(0o755)
    shipped = tmp_path / "reports" / "reference" / "h100-80gb" / "records.db"
    shipped.parent.mkdir(parents=True)
    shipped.write_bytes(b"records")
    (tmp_path / "calls").unlink()
    done = make("sweep")
    assert (done.returncode == 0) == (swept == 0)
    assert (tmp_path / "workbench.db").read_bytes() == b"records"
    lines = [line for line in (tmp_path / "calls").read_text().splitlines() if "-m" not in line]
    sweep = "sweep probes/default.py --store workbench.db --source"
    report = "report workbench.db -o reports/latest"
    # The report of the H100 before this machine is measured at all.
    all_ = [f"{sweep} predicted", f"{report} --no-images", f"{sweep} measured", report]
    assert lines == (all_ if reported else all_[:1])
    ending = done.stdout.strip().endswith("dashboard:  .venv/bin/workbench dashboard workbench.db")
    assert ending == reported


def test_make_says_what_to_install(tmp_path: Path) -> None:
    done = fresh(tmp_path, venv="exit 1")()
    assert done.returncode
    assert "apt-get install python3-venv" in done.stderr


def test_make_refuses_an_old_python(tmp_path: Path) -> None:
    done = fresh(tmp_path, version=1)()
    assert done.returncode
    assert "Python 3.11 or newer is needed: make PYTHON=python3.12" in done.stderr


MARKER = re.compile(r"^(<{7}|>{7}|\|{7})( |$)|^={7}$", re.MULTILINE)
"""A line that a merge leaves where it could not decide."""


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("<" * 7 + " HEAD", True),
        ("a\n" + "=" * 7 + "\nb", True),
        (">" * 7 + " 48d3c75 (x)", True),
        ("|" * 7, True),
        ("=" * 8, False),
        ("a " + "<" * 7 + " b", False),
    ],
)
def test_a_merge_s_marker_is_known(text: str, is_one: bool) -> None:
    assert bool(MARKER.search(text)) == is_one


def test_no_tracked_file_has_a_merge_s_markers() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert len(files) > 100
    undecided = [
        str(path.relative_to(ROOT))
        for path in files
        if path.is_file() and MARKER.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert undecided == []


def test_ci_runs_the_readme_s_commands() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert {"make check", "make test", "make test-all"} <= {
        line.strip() for line in script.read_text().splitlines()
    }


def test_every_slow_test_exists_and_every_test_runs_in_ci() -> None:
    for name in slow_names():
        path, _, function = name.partition("::")
        assert (ROOT / path).is_file(), name
        assert f"def {function}(" in (ROOT / path).read_text() or not function, name
    makefile = (ROOT / "Makefile").read_text()
    (quick,) = re.findall(r'^test: install\n.* -m "(.*)"$', makefile, re.MULTILINE)
    (rest,) = re.findall(r'^test-all: install\n.* -m "(.*)"$', makefile, re.MULTILINE)
    assert quick == "not slow"
    assert "slow" in rest.split(" or ")
