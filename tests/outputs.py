"""What the commands of a page print, in the block below each.

A block of one command that a ``text`` block follows shows what that command writes to standard
output: its first lines, and ``…`` where there are more. ``rewrite`` makes them again:
``.venv/bin/python -c "from tests.outputs import rewrite; rewrite()"``.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import golden

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "reports" / "reference" / "h100-80gb" / "records.db"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = re.compile(r"^(?:\.venv/bin/)?workbench ")
PAIR = re.compile(r"^```\n(?P<command>[^\n`]+)\n```\n\n```text\n(?P<output>.*?)^```$", re.M | re.S)
MOST = 12
"""Lines that a page shows of an output."""
MORE = "…"


def outputs(page: Path) -> dict[str, str]:
    """The commands of a page, without the program's name, and the text that stands below each."""
    pairs = PAIR.finditer(page.read_text("utf-8"))
    return {PROGRAM.sub("", pair["command"]): pair["output"] for pair in pairs}


def beginning(output: str) -> str:
    """What a page shows of an output."""
    lines = output.splitlines()
    more = [MORE] if len(lines) > MOST else []
    return "".join(f"{line}\n" for line in [*lines[:MOST], *more])


def fill_checkout(folder: Path) -> None:
    """Put into a folder what a reader has: probes, the shipped records, and stores of sweeps."""
    (folder / "probes").symlink_to(ROOT / "probes")
    shipped = folder / "reports" / "reference" / "h100-80gb"
    shipped.mkdir(parents=True)
    for path in (shipped / "records.db", folder / "reference.db"):
        shutil.copy(RECORDS, path)
    for name in ("workbench.db", "node.db"):
        golden.build(folder / name, "like_default")


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The program with these words, in that folder."""
    command = [sys.executable, "-m", "workbench", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )


def rewrite() -> None:
    """Run every such command and write into its page what it prints."""
    for page in PAGES:
        text = page.read_text("utf-8")
        if PAIR.search(text) is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            fill_checkout(Path(folder))
            page.write_text(PAIR.sub(lambda pair: _printed(pair, Path(folder)), text), "utf-8")


def _printed(pair: re.Match[str], folder: Path) -> str:
    done = run(PROGRAM.sub("", pair["command"]).split(), folder)
    assert done.returncode == 0, done.stderr
    return f"```\n{pair['command']}\n```\n\n```text\n{beginning(done.stdout)}```"
