"""What a sweep file may hold, and what a sweep comes to on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from workbench.sweep.plan import heads, kinds, load_probe, plan
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.sweep import Grid, Sweep

PROBE = "from workbench import Grid, Sweep\ndef sweep():\n    return "


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_yaml_and_python_make_the_same_sweep(tmp_path: Path) -> None:
    yaml = written(tmp_path, "a.yaml", "name: a\nvisual: [1, 2]\nattentions: [s_attn, d_attn]\n")
    grid = "Grid(visual=(1, 2), attentions=('s_attn', 'd_attn'))"
    python = written(tmp_path, "a.py", f"{PROBE}Sweep(name='a', grids=({grid},))\n")
    assert load_probe(yaml) == load_probe(python)


def test_short_numbers_and_the_cell_s_names_are_the_same_sweep(tmp_path: Path) -> None:
    long = "name: a\nmodels: [qwen2-7b]\nvisual: [10000, 1500000]\nbatches: [1, 2000]\n"
    long += "attentions: [d_attn]\ndtypes: [float16]\npasses: [train]\noptions: [{chunk: 8000}]\n"
    short = "name: a\nmodel: qwen2-7b\nvisual: [10k, 1.5M]\nbatch: [1, 2k]\n"
    short += "attention: d_attn\ndtype: fp16\npass: train\noptions: {chunk: 8k}\n"
    wanted = load_probe(written(tmp_path, "long.yaml", long)).points()
    assert load_probe(written(tmp_path, "short.yaml", short)).points() == wanted
    grids = "name: a\ngrids:\n- " + short.partition("\n")[2].replace("\n", "\n  ")
    assert load_probe(written(tmp_path, "grids.yaml", grids)).points() == wanted
    for field, value in {"num_visual": "10k", "dtype": "bf16"}.items():
        given = make_cell(**{"num_visual": 10_000, field: value})
        assert given.key == make_cell(num_visual=10_000, dtype="bfloat16").key


def test_keys_are_those_of_stores_that_exist() -> None:
    assert make_cell(num_visual=1).key == "5f0b49aa047cc5e0"
    other = {"model": "é/ü", "memory_cap": 10**18, "layout": "V3,T", "pass": "train"}
    assert make_cell(num_visual=5, **other).key == "16724eea2dff3fcc"


def test_the_heads_of_a_sweep_have_all_its_kinds() -> None:
    axes = {"models": ("mistral-7b-v0.3", "qwen2-7b"), "text": (8, 16)}
    measured = Grid(visual=(4, 8, 16), device="cpu", **axes)  # type: ignore[arg-type]
    predicted = Grid(visual=(4, 32), source="predicted", device="h100-80gb", batches=(1, 2))
    sweep = Sweep(name="s", grids=(measured, predicted))
    found, first = plan(sweep), heads(sweep)
    assert (len(found), len(first)) == (16, 6)
    assert {task.point.cell.kind for task in first} == {task.point.cell.kind for task in found}
    assert {task.device for task in first} == {task.device for task in found}


def test_a_copy_of_a_grid_has_points_of_its_own() -> None:
    grid = Grid(visual=(4, 8), dtypes=("float32",))
    assert {point.cell.dtype for point in grid.points()} == {"float32"}
    other = grid.model_copy(update={"dtypes": ("bfloat16",), "visual": (2,)})
    (point,) = other.points()
    assert (point.cell.dtype, point.cell.num_visual) == ("bfloat16", 2)
    with pytest.raises(ValueError, match="dtypes"):
        grid.model_copy(update={"dtypes": ("float31",)})


def test_a_probe_may_build_on_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path, "one_neighbour.py", f"{PROBE}Sweep(name='n', grids=(Grid(visual=(3,)),))\n")
    text = "import one_neighbour\ndef sweep():\n    return one_neighbour.sweep()\n"
    assert load_probe(written(tmp_path, "b.py", text)).name == "n"


WORDS = ",".join(f"w{i}" for i in range(80))
GRID = f"{{visual: 1, text: [{','.join(['1'] * 300)}], batches: [{','.join(['1'] * 200)}]}}"
PRODUCT = f"models: [{WORDS}]\nattentions: [{WORDS}]\ntext: [{','.join(map(str, range(80)))}]\n"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.yaml", "visual: [1, 2", "line 1: not plain YAML"),
        ("b.yaml", "visual: [-5]\nmodels: [mistral-7b-v0.3]\n", "visual.0 -5: must be at least 0"),
        ("c.yaml", "!!python/object/apply:os.system ['touch pwned']\n", "line 1: a tag"),
        ("d.yaml", "", "a sweep is a mapping"),
        ("e.yaml", "[]", "a sweep is a mapping"),
        ("g.yaml", "\x00\x01\x02", "not plain YAML"),
        ("h.yaml", "visual: 1e400\n", "visual"),
        ("i.yaml", "models: {a: 1}\n", "visual"),
        ("j.yaml", "unknown_field: 3\n", "visual"),
        ("k.yaml", "visual: 3\noptions: [{fold: maybe}]\n", "fold"),
        ("l.py", "def sweep(:\n", "line 1: SyntaxError"),
        ("m.py", "x = 1\n", "defines no sweep()"),
        ("n.py", "def sweep():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
        ("o.py", "def sweep():\n    return 3\n", "returned int, not a Sweep"),
        ("p.py", "raise SystemExit('bye')\n", "line 1: SystemExit: bye"),
        ("q.py", f"{PROBE}Grid(visual=(-1,))\n", "line 3: visual.0 -1: must be at least 0"),
        ("r.txt", "visual: 3\n", ".yaml file, or a .py file"),
        ("t.yaml", f"{PRODUCT}kernels: [{WORDS}]\nvisual: 1\n", "make 40,960,000 cells"),
        ("u.yaml", f"grids: [{GRID}, {GRID}]\n", "grids: the axes make 120,000 cells"),
        ("v.yaml", "visual: [256]\nvisual: [512]\n", "line 2: visual: given twice"),
        ("w.yaml", "visual: [0256, 010]\n", "line 1: 0256: has a leading zero"),
        ("x.yaml", "visual: 1\nmodel: qwen2-7b\nmodels: [qwen2-7b]\n", "given beside models"),
        ("y.yaml", "grids: [{visual: 1, pass: train, passes: train}]\n", "given beside passes"),
        ("z.yaml", "visual: 1.5432k\n", "visual '1.5432k'"),
        ("0.yaml", f"model: [{WORDS}]\nvisual: 1\nbatch: [{','.join(['1'] * 2000)}]\n", "160,000"),
        ("s.yaml", "visual: 3\ndevice: auto\nsource: guessed\n", "source 'guessed'"),
    ],
)
def test_a_malformed_sweep_is_one_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = written(tmp_path, name, text)
    with pytest.raises(RequestError) as caught:
        load_probe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["missing.yaml", "missing.py"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=name):
        load_probe(tmp_path / name)


def test_a_plan_has_each_identity_once() -> None:
    fields = {"visual": (4, 8), "attentions": ("s_attn", "d_attn")}
    sweep = Sweep(
        name="s",
        grids=(
            Grid(device="cpu", **fields),
            Grid(device="cpu", visual=(8, 16)),
            Grid(source="predicted", device="h100-80gb", **fields),
        ),
    )
    tasks = plan(sweep)
    assert len({task.identity for task in tasks}) == len(tasks) == 9
    assert {task.device_name for task in tasks} == {"cpu", "h100-80gb"}
    assert [cell.attention for cell in kinds(tasks)] == ["s_attn", "d_attn"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"source": "predicted"}, "device 'auto': a prediction needs a device entry: a100"),
        ({"source": "predicted", "device": "h1000"}, "did you mean h100-80gb"),
        ({"device": "tpu"}, "auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_device_that_cannot_be(fields: dict[str, str], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        plan(Sweep(name="s", grids=(Grid(visual=(4,), **fields),)))


def test_a_cell_is_emulated_in_one_way_within_a_sweep() -> None:
    """The key of a cell does not know the protocol: one of the two records would be lost."""
    from workbench.vocabulary.protocol import Protocol

    fields = {
        "device": "cpu",
        "visual": 8,
        "scopes": "decoder",
        "passes": "train",
        "options": {"zero": 3, "world_size": 4},
    }
    every, some = (Grid(**fields, protocol=Protocol(emulate=n)) for n in ("all", 2))
    assert len(plan(Sweep(name="s", grids=(every, every)))) == 1
    with pytest.raises(RequestError, match=r"emulate 2: .* with emulate all too"):
        plan(Sweep(name="s", grids=(every, some)))


def test_who_shares_the_cells_out_loads_no_torch() -> None:
    """Its workers do, and it need not wait until it could as well."""
    code = "import sys, workbench.sweep.run; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
