"""Systems side by side: the command, its document and figure, and where one takes less."""

import json

import pandas as pd
import pytest

from workbench.analysis.efficiency import efficiency_lengths
from workbench.cli import main
from workbench.figures.systems import systems_figure
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.pictures import fields_of
from workbench.probe.predicting.predict import predict
from workbench.probe.predicting.systems import LARGEST, compare_systems
from workbench.store import Store
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import make_pictures
from workbench.vocabulary.sweep import Grid, Sweep


def test_every_system_stands_beside_the_others():
    cell = make_cell(num_visual=600, scope="layer", tiled=True)
    found = {one.name: one for one in compare_systems(cell, "h100-80gb", limits=False)}
    assert set(found) == set(SYSTEMS)
    for name, one in found.items():
        own = one.record
        if own is None:
            assert "scope layer" in one.error
            continue
        assert own.cell.attention == name
        assert own.cell.tiled is ("tiled" in SYSTEMS[name].options)
        if own.status == "ok":
            assert own.metrics == predict(own.cell, "h100-80gb").metrics


def test_an_efficiency_length_is_where_the_order_turns():
    cell = make_cell(
        model="qwen2-0.5b", num_visual=64, num_text=32, logits="text", scope="decoder"
    )
    (found,) = compare_systems(cell, "h100-80gb", ["d_attn_cascade"], limits=False, lengths=True)
    length = found.lengths["flops"]
    assert 0 < length < LARGEST

    def flops(attention, size):
        sized = cell.replace(attention=attention, num_visual=size)
        return predict(sized, "h100-80gb").metrics["flops"]

    assert flops("d_attn_cascade", length) < flops("s_attn", length)
    below = int(length / 1.011) - 1
    assert flops("d_attn_cascade", below) >= flops("s_attn", below)


def test_the_command(capsys, tmp_path):
    chart = tmp_path / "systems.html"
    words = [
        "compare-systems",
        "--visual",
        "600",
        "--system",
        "s_attn",
        "--system",
        "himix",
        "--chart",
        str(chart),
    ]
    main([*words, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["cell"]["num_visual"] == 600
    assert [one["attention"] for one in document["systems"]] == ["s_attn", "himix"]
    himix = document["systems"][1]
    assert himix["gives_up"] == "visual rows; needs training"
    assert himix["max_visual"] < himix["fails_at"]
    assert "HiMix" in chart.read_text(encoding="utf-8")
    main(words)
    lines = capsys.readouterr().out.splitlines()
    assert " is the fastest that fits: " in lines[0]
    assert lines[2].split()[:2] == ["system", "kernel"]
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--system", "s_atn"], "attention system 's_atn'"), (["--chart", "x.png"], "chart 'x.png'")],
)
def test_wrong_words_are_one_line(words, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare-systems", "--visual", "9", *words])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_what_does_not_fit_is_hollow():
    documents = [
        {
            "label": "A",
            "group": "exact",
            "gives_up": "",
            "status": "ok",
            "metrics": {"time_s": 1.0, "peak_bytes": 10},
        },
        {
            "label": "B",
            "group": "exact",
            "gives_up": "",
            "status": "oom",
            "metrics": {"time_s": 2.0, "peak_bytes": 20},
        },
        {"label": "C", "group": "exact", "gives_up": "", "status": "unsupported", "metrics": {}},
    ]
    drawn = systems_figure(documents, "three systems")
    bars = drawn.data[0]
    assert list(bars.y) == ["A", "B"]
    assert bars.text[1].endswith("does not fit")
    assert bars.marker.color[0] != bars.marker.color[1]


def test_lengths_of_a_store(tmp_path):
    cells = [
        make_cell(attention=a, num_visual=v, num_text=8, model="qwen2-0.5b")
        for a in ("s_attn", "d_attn_cascade")
        for v in (16, 256, 4096)
    ]
    with Store.open(tmp_path / "a.db", mode="w") as store:
        sweep = Sweep(name="x", grids=(Grid(visual=(16,)),))
        records = [predict(cell, "h100-80gb") for cell in cells]
        run = store.begin_run(
            "x", sweep.model_dump(mode="json", by_alias=True), records[0].environment
        )
        store.add_many(run, records)
        frame = store.frame()
    (row,) = efficiency_lengths(frame, "S-Attn · sdpa", ["flops"]).to_dict("records")
    values = frame.pivot(index="num_visual", columns="attention", values="flops")
    less = values["d_attn_cascade"] < values["s_attn"]
    assert row["less_from"] == less[less].index.min()
    assert row["not_less_at"] == less[~less].index.max()
    assert efficiency_lengths(frame, "nobody", ["flops"]).empty
    assert pd.isna(
        efficiency_lengths(frame, "D-Attn cascade · sdpa", ["flops"]).iloc[0]["less_from"]
    )


def test_images_of_any_size_are_what_every_system_is_predicted_for():
    pictures = make_pictures(resolution="640x360", count=1)
    shown = fields_of("hunyuan-ocr-1b", pictures, "V,T")
    cell = make_cell(model="hunyuan-ocr-1b", scope="lvlm", **shown)
    (found,) = compare_systems(cell, "h100-80gb", ["s_attn"], limits=False, pictures=pictures)
    assert found.record.metrics == predict(cell, "h100-80gb", pictures=pictures).metrics
    with pytest.raises(RequestError, match="tokens an image"):  # Of itself it shows squares.
        list(compare_systems(cell, "h100-80gb", ["s_attn"], limits=False))


def test_a_system_that_more_tokens_have_no_place_for_is_one_row(capsys):
    """BiFormer serves Gemma 3 until the window hides keys: its threshold is not to be told."""
    cell = make_cell(model="gemma-3-4b", num_visual=600, num_text=32, scope="layer", layer=0)
    plain, biformer = compare_systems(cell, "h100-80gb", ["s_attn", "biformer"])
    assert plain.limit is not None
    assert plain.error is None
    assert biformer.record.status == "ok"
    assert biformer.limit is None
    assert biformer.error.startswith("largest |V|: biformer ")
    assert "window" in biformer.error
    words = "--model gemma-3-4b --scope layer --layer 0 --visual 600 --system biformer"
    main(["compare-systems", *words.split()])
    assert "; largest |V|: biformer " in capsys.readouterr().out
