"""A cell as deepspeed's configuration, which deepspeed's own class reads; the paper's presets."""

import json

import pytest

from tests.small import small_model
from workbench.cli import main
from workbench.commands.options import _cell
from workbench.store import Store
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.presets import PRESETS
from workbench.vocabulary.record import Record, Status


def exported(capsys, *arguments):
    main(["export", "--deepspeed-config", *map(str, arguments)])
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def cell(tmp_path):
    model = small_model("mistral", tmp_path)
    return make_cell(
        model=model,
        scope="decoder",
        num_visual=33,
        zero=3,
        world_size=4,
        accumulate=8,
        batch=2,
        offload_optimizer=True,
        **{"pass": "train"},
    )


def test_deepspeed_reads_it(cell, tmp_path, capsys):
    path = tmp_path / "cell.json"
    path.write_text(json.dumps({"cell": cell.document()}))
    config = exported(capsys, path)
    from deepspeed.runtime.config import DeepSpeedConfig

    read = DeepSpeedConfig(config)
    assert read.zero_optimization_stage == 3
    assert read.zero_config.offload_optimizer.device == "cpu"
    assert read.zero_config.reduce_bucket_size == 21_728
    assert read.zero_config.sub_group_size == 10**9
    assert read.bfloat16_config.enabled
    assert (read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps) == (2, 8)
    assert read.optimizer_name == "adamw"
    assert read.optimizer_params["betas"] == [0.9, 0.95]
    assert read.optimizer_params["eps"] == 1e-5


def test_a_cell_is_named_by_its_key_in_a_store(cell, tmp_path, capsys):
    path, out = tmp_path / "a.db", tmp_path / "ds.json"
    record = Record(cell=cell, source="predicted", device="h100-80gb", status=Status.OK)
    with Store.open(path, "w") as store:
        store.add(store.begin_run("a", {"name": "a", "grids": []}, record.environment), record)
    main(["export", str(path), "--deepspeed-config", cell.key[:6], "-o", str(out)])
    assert json.loads(out.read_text())["zero_optimization"]["stage"] == 3
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(path), "--deepspeed-config", "zzz"])
    assert "no cell has that key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "holds no fields of a cell"),
        ("{num_visual: 8}", "has no optimizer; give a train pass"),
        ("{num_visual: 8, pass: train, scope: decoder, zero: 2}", "nobody to share with"),
        ("{num_visual: 8, wheels: 4}", "wheels"),
        ("a: b: c", "line 1: not plain YAML"),
        ("{num_visual: 8, num_visual: 9}", "num_visual: given twice"),
        ("num_visual: 3\nlayout: [&a [x], *a]", "line 2: an alias (*a) is not read"),
    ],
)
def test_what_is_no_training_step_is_said_in_one_line(text, words, tmp_path, capsys):
    path = tmp_path / "cell.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--deepspeed-config", str(path)])
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "total", "zero", "rate", "betas"),
    [
        ("paper-stage-1", 512, 2, 1e-3, (0.9, 0.999)),
        ("paper-stage-2", 256, 3, 2e-6, (0.9, 0.95)),
        ("paper-stage-3", 128, 3, 2e-6, (0.9, 0.95)),
    ],
)
def test_presets_are_table_7(name, total, zero, rate, betas):
    from workbench.lvlm.models import FAMILIES
    from workbench.lvlm.optimizers.settings import hyper_of

    cell = _cell({"preset": name, "num_visual": 729})
    assert cell.batch * cell.accumulate * cell.world_size == total
    assert cell.zero == zero
    settings = hyper_of(cell, FAMILIES["mistral"].training)
    assert settings.betas == betas
    assert settings.rates["adapter" if cell.frozen else "decoder"] == rate
    for family in ("gemma2", "gemma3"):
        papers = hyper_of(cell.replace(frozen=None), FAMILIES[family].training)
        assert papers.rates["tower"] == 1e-6


def test_options_go_over_a_preset():
    cell = _cell({"preset": "paper-stage-1", "num_visual": 729, "world_size": 2, "zero": None})
    assert (cell.world_size, cell.zero, cell.frozen) == (2, 2, "decoder,tower")
    with pytest.raises(RequestError, match="preset 'paper-stage-4' is unknown; did you mean"):
        _cell({"preset": "paper-stage-4", "num_visual": 729})
    assert list(PRESETS) == ["paper-stage-1", "paper-stage-2", "paper-stage-3"]
