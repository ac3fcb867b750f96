"""The tests of ``tests/packages``, a process for each file, with timm and torchvision on its path.

They cannot stand where torch does: beside a CPU build PyPI's torchvision does not load, and
transformers, which would see it, asks for it in every image processor. ``make install`` puts them
into a folder of their own.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = Path(sys.prefix) / "towers"
FILES = sorted((ROOT / "tests" / "packages").glob("test_*.py"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the packages on its path: those beside torch, where there are any."""
    environment = dict(os.environ)
    if find_spec("torchvision") is None:
        assert (FOLDER / "torchvision").is_dir(), f"{FOLDER} is missing: make install"
        environment["PYTHONPATH"] = str(FOLDER)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file(file: Path) -> None:
    ended = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", str(file))
    last = ended.stdout.strip().splitlines()[-1]
    assert re.fullmatch(r"\d+ passed(, \d+ warnings?)? in .*", last), ended.stdout + ended.stderr


def test_where_the_two_do_not_pair_one_line_says_so() -> None:
    """On a machine whose torch is a CPU build; where they pair there is nothing to say."""
    code = "from workbench.lvlm.configs.packages import obstacle; print(obstacle('timm'))"
    ended = run("-c", code)
    assert not ended.returncode, ended.stderr
    assert re.fullmatch(
        r"|needs torchvision, which is installed, but does not pair with torch \S+ \(.*\); both "
        r"have to come from one index, as those of pip install '.*\[towers\]' do",
        ended.stdout.strip(),
    ), ended.stdout
