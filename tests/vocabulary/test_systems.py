"""Settings of systems and reducers: one canonical text, checked against their entries."""

import pytest

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.reduce import REDUCERS
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.systems import Entry, Setting, canonical, entries, label, settings_of


def test_every_entry_has_code_and_every_code_an_entry():
    assert set(entries()["attention"]) == set(SYSTEMS)
    assert set(entries()["reduce"]) == set(REDUCERS)
    for kind in entries().values():
        for found in kind.values():
            assert found.label
            assert found.gives_up
            assert found.group in ("exact", "approximate", "reducer")
            assert found.logits in ("all", "text")
            for setting in found.settings.values():
                assert setting.help
                assert setting.read(str(setting.default)) == setting.default


def test_labels_are_the_published_spelling():
    assert label("attention", "d_attn_sum") == "D-Attn sum"
    assert label("attention", "of_tomorrow") == "of_tomorrow"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("side=3", "side=3"),
        (["side=3"], "side=3"),
        ({"side": 3}, "side=3"),
        ("side=03", "side=3"),
        ("side=2", None),
        ("pool.side=3", "side=3"),
        ("", None),
    ],
)
def test_settings_have_one_form(given, kept):
    cell = make_cell(num_visual=5, scope="decoder", reduce="pool", settings=given)
    assert cell.settings == kept
    assert cell.key == make_cell(num_visual=5, scope="decoder", reduce="pool", settings=kept).key
    assert settings_of("reduce", "pool", cell.settings) == {"side": 3 if kept else 2}


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"settings": "queries=1k", "reduce": "resampler"}, {"settings": "queries=1000"}),
        ({"memory_cap": "40G"}, {"memory_cap": 40 * 10**9}),
        ({"memory_cap": "40_000"}, {"memory_cap": 40_000}),
        ({"cache_dtype": "bf16", "dtype": "fp32"}, {"cache_dtype": "bfloat16"}),
        ({"cache_dtype": "bf16"}, {"cache_dtype": None}),
        ({"pass": "train", "master_weights": "bf16"}, {"master_weights": "bfloat16"}),
        ({"pass": "train", "lora": "r=4,dtype=fp32"}, {"lora": "r=4,dtype=float32"}),
    ],
)
def test_short_values_are_the_long_ones(short, long):
    fields = {"num_visual": 5, "scope": "decoder"}
    assert make_cell(**fields, **short) == make_cell(**fields, **{**short, **long})


def test_every_wrong_setting_is_told():
    with pytest.raises(RequestError) as raised:
        make_cell(num_visual=5, reduce="pool", settings="side=0,at=2", batch=0)
    assert str(raised.value).split("; ") == [
        "batch 0: must be at least 1",
        "settings side=0: a whole number from 1 to 64",
        "settings at: s_attn has no settings",
        "pool has side",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sides=3", "sides: s_attn has no settings; pool has side"),
        ("side", "'side': write name=value, such as side=2"),
        ("side=", "write name=value"),
        ("side=0", "side=0: a whole number from 1 to 64"),
        ("side=1.5", "side=1.5: a whole number from 1 to 64"),
        ("side=nan", "side=nan: a whole number"),
        ("side=2,side=3", "side is given twice"),
        ("side=2,pool.side=3", "pool.side is given twice"),
    ],
)
def test_wrong_settings_are_one_line(given, said):
    with pytest.raises(RequestError, match=said):
        make_cell(num_visual=5, scope="decoder", reduce="pool", settings=given)


def test_without_a_reducer_nothing_has_settings():
    with pytest.raises(RequestError, match="side: s_attn has no settings"):
        make_cell(num_visual=5, settings="side=3")


def test_a_setting_that_two_declare_names_its_owner(monkeypatch):
    keep = {"keep": Setting("keep", 0.5, "float", "share that stays", 0, 1)}
    named = {
        "attention": {"prune": Entry("prune", "Prune", "approximate", "tokens", settings=keep)},
        "reduce": {"merge": Entry("merge", "merge", "reducer", "tokens", settings=keep)},
    }
    monkeypatch.setattr("workbench.vocabulary.systems.entries", lambda: named)
    both = {"attention": "prune", "reduce": "merge"}
    with pytest.raises(ValueError, match=r"keep: two declare it; write prune.keep or merge.keep"):
        canonical("keep=0.25", both)
    text = canonical("merge.keep=0.25,prune.keep=.5", both)
    assert text == "merge.keep=0.25"
    assert settings_of("reduce", "merge", text) == {"keep": 0.25}
    assert settings_of("attention", "prune", text) == {"keep": 0.5}
    assert canonical("keep=0.25", {**both, "reduce": None}) == "keep=0.25"


def test_names_without_an_entry_keep_their_words():
    cell = make_cell(num_visual=5, attention="of_tomorrow", settings="b=x,a=1")
    assert cell.settings == "a=1,b=x"


def test_old_keys_stay():
    """A key from before these fields were there."""
    assert make_cell(num_visual=729, attention="d_attn").key == "a84042bd16a53523"
