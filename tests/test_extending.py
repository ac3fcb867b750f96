"""What comes next is one file or one entry each: done here, in a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]


class Change(NamedTuple):
    """One file of the package that is new, or that an entry is put into before a line."""

    file: str
    text: str
    before: str = ""
    check: str = ""
    """Python that finds it at work where people would look for it."""


CHANGES = {
    "a system with cross-attention in some layers": Change(
        "lvlm/attention/sparse_xattn.py",
        '''
"""Text reads the visual embeddings in a layer inserted before every eighth."""

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.gated_xattn import GatedXAttn


class SparseXAttn(GatedXAttn):
    name = "sparse_xattn"

    def chosen(self, model, cell):
        return range(0, model.config.num_hidden_layers, 8)


SYSTEMS.add("sparse_xattn", SparseXAttn())
''',
        check="""
shared = dict(scope="decoder", num_visual=64, logits="text")
own, base = (predict(Cell(attention=a, **shared), "h100-80gb") for a in ("sparse_xattn", "s_attn"))
assert own.status == "ok"
assert own.metrics["params"] > base.metrics["params"]
from workbench.lvlm.attention import SYSTEMS
assert "sparse_xattn" in SYSTEMS
""",
    ),
    "a family with experts": Change(
        "lvlm/models/mixtral.py",
        '''
"""Mixtral: Mistral's layer whose MLP is 8 experts, 2 of them for a token."""

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add("mixtral", Family("mixtral", "mixtral", "Mixtral", llama_like))
FIELDS = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": None,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
}
MODELS.add("mixtral-small", Model("mixtral", FIELDS, "a test"))
''',
        check="""
import torch
from transformers import MixtralConfig, MixtralForCausalLM
from workbench.lvlm.models.mixtral import FIELDS
with torch.device("meta"):
    theirs = MixtralForCausalLM(MixtralConfig(**FIELDS))
cell = Cell(model="mixtral-small", scope="decoder", num_visual=64, dtype="float32")
found = predict(cell, "h100-80gb").metrics
assert found["params"] == sum(p.numel() for p in theirs.parameters())
assert found["active_params"] == found["params"] - 2 * (8 - 2) * 3 * 64 * 96
""",
    ),
    "a device": Change(
        "vocabulary/devices.yaml",
        """
their-card:
  label: A card of a test
  peak_flops: {bfloat16: 1e+14, float16: 1e+14, tf32: 1e+14, float32: 1e+13, float64: 1e+12}
  bandwidth_bytes_per_s: 1e+12
  memory_bytes: 16 GB
  total_bytes: 16 GiB
  context_bytes: 0.5 GiB
  sources: {peak_flops: a, bandwidth_bytes_per_s: a, memory_bytes: a, total_bytes: a,
    context_bytes: a, host_bandwidth_bytes_per_s: a, link_bandwidth_bytes_per_s: a,
    blas_workspace_bytes: a, peak_clock_hz: a}

""",
        before="a100-40gb:",
        check="""
found = predict(Cell(num_visual=64), "their-card")
assert found.device == "their-card" and found.metrics["time_s"] > 0
from workbench.commands.reference_page import reference
assert "`their-card` | 100.0 TFLOP/s | 1.00 TB/s | 15.50 GiB" in reference(REFERENCE)
""",
    ),
    "a metric of NVML": Change(
        "vocabulary/metrics.py",
        """    (
        "temperature_c",
        "1",
        "Temperature",
        "median of the card's sensor while timed, in degrees Celsius",
        Sensor("nvmlDeviceGetTemperature", (0,)),
    ),
""",
        before='    (\n        "sm_clock_hz",',
        check="""
from tests.probe.fake_nvml import FakeNvml
from workbench.probe.machine.nvml import Nvml
from workbench.probe.measuring.telemetry import Telemetry
from workbench.probe.measuring.timing import Timing
from workbench.probe.measuring.watch import account
with Telemetry("cuda", Nvml(FakeNvml(["NVIDIA H100 80GB HBM3"]))) as watch:
    pass
timing = Timing(samples={"time_s": [1.0]}, spans=[(0.0, 1.0)])
account(timing, watch)
assert timing.metrics["temperature_c"] == 51
from workbench.commands.reference_page import reference
assert "| `temperature_c` | 1 | median of the card's sensor" in reference(REFERENCE)
""",
    ),
    "an aspect": Change(
        "aspects/counted.py",
        '''
"""How many cells there are."""

from workbench.aspects import ASPECTS, Aspect, Block


def counted(material, subject):
    return Block("How many cells", (f"{len(subject.rows)} cells were counted.",))


ASPECTS.add("counted", Aspect(99, "Counted", "How many cells are there?", "tag", counted))
''',
        check="""
import pathlib, tempfile
from tests import golden
folder = pathlib.Path(tempfile.mkdtemp())
from workbench.report.contents import contents
found = contents(golden.build(folder / "a.db", "two_runs"))
last = [section.blocks[-1] for section in found.sections if len(section.blocks) > 5]
assert last and all("cells were counted" in block.sentences[0] for block in last)
from streamlit.testing.v1 import AppTest
sys.argv = ["app.py", str(folder / "a.db")]
code = "from workbench.aspects import ASPECTS\\nfrom workbench.dashboard.plain import draw\\n"
code += "draw('counted', ASPECTS['counted'])"
page = AppTest.from_string(code, default_timeout=120).run()
assert page.title[0].value == "How many cells are there?"
assert any("cells were counted" in each.value for each in page.markdown)
from pathlib import Path
entry = AppTest.from_file(Path(APP), default_timeout=120).run()
assert not entry.exception
""",
    ),
    "a field of a cell": Change(
        "vocabulary/cell_fields.py",
        """    prefix: Annotated[
        int,
        Field(ge=0, strict=True),
        Whole,
        Description("tokens of a system prompt", label="Prompt", caption="prompt {:,}"),
    ] = 0
""",
        before="    batch: Annotated[",
        check="""
assert Cell(num_visual=64).key == KEY
assert Cell(num_visual=64, prefix=7).key != KEY
from workbench.commands.options import cell_options
assert cell_options()["prefix"].flag == "--prefix" and cell_options()["prefix"].kind is int
from workbench.commands.reference_page import reference, schema
assert "| `--prefix` | 0 | tokens of a system prompt |" in reference(REFERENCE)
assert "`prefix`" in schema(SCHEMA)
from workbench import Grid
assert [p.cell.prefix for p in Grid(visual=(1,), options=({"prefix": 3},)).points()] == [3]
import pathlib, tempfile
from tests import golden
from workbench.analysis import CONDITIONS
from workbench.analysis.series import with_series
from workbench.store import Store
from workbench.telling.words import setting
assert "prefix" in CONDITIONS
path = pathlib.Path(tempfile.mkdtemp()) / "a.db"
with Store.open(path, mode="w") as store:
    store.add(store.begin_run("s", {}, golden.LAPTOP), golden.record(num_visual=64, prefix=1024))
with Store.open(path) as store:
    frame = store.frame()
assert frame["prefix"].tolist() == [1024]
assert "prompt 1,024" in setting(with_series(frame))
""",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_file_or_one_entry_is_enough(name: str, tmp_path: Path) -> None:
    change = CHANGES[name]
    for folder in ("workbench", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    file = tmp_path / "workbench" / change.file
    if change.before:
        text = file.read_text(encoding="utf-8")
        assert text.count(change.before) == 1
        file.write_text(text.replace(change.before, change.text + change.before))
    else:
        assert not file.exists()
        file.write_text(change.text)
    from workbench import Cell

    docs = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("reference", "schema")}
    script = f"""
import sys
import workbench
from workbench import Cell, predict
assert workbench.__file__.startswith({str(tmp_path)!r})
KEY, APP = {Cell(num_visual=64).key!r}, {str(ROOT / "app.py")!r}
REFERENCE, SCHEMA = {docs["reference"]!r}, {docs["schema"]!r}
{change.check}
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
