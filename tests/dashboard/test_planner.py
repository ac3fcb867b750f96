"""The planner: its predictor in a process of its own, its advice, its page."""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.benchmarks.planner import QUESTION
from tests.dashboard.test_pages import page, words
from tests.reference import STORE
from workbench.dashboard.plan import (
    Ask,
    System,
    advice,
    best_of,
    certainty,
    certainty_of_all,
    cost,
    fits,
    generation,
    given_up,
    larger_cards,
    peak_of,
    predicted,
    systems,
    together,
)
from workbench.dashboard.predictor import Predictor, Predictors
from workbench.store import Store
from workbench.telling.measured_threshold import measured_threshold
from workbench.telling.view import prepared
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.errors import Failure
from workbench.vocabulary.units import quantity

CARD = "h100-80gb"
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from workbench.cli import main; main()"


@pytest.fixture(scope="module")
def predictor() -> Iterator[Predictor]:
    found = Predictor()
    yield found
    found.close()


@pytest.fixture
def ask(predictor: Predictor) -> Ask:
    def asked(do: str, cell: Cell) -> dict[str, object]:
        fields = cell.model_dump(mode="json", by_alias=True)
        return predictor.ask({"do": do, "cell": fields, "device": CARD})

    return asked


def test_it_answers_as_the_commands_do(predictor: Predictor) -> None:
    from workbench.probe.predicting.predict import predict

    cell = {"num_visual": 4096, "attention": "d_attn"}
    answer = predictor.ask({"do": "predict", "cell": cell, "device": CARD})
    assert answer["metrics"] == predict(make_cell(**cell), CARD).document()["metrics"]
    assert "s_attn" in predictor.ask({"do": "names"})["attentions"]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"do": "predict", "cell": {"num_visual": -1}, "device": CARD}, "num_visual -1"),
        ({"do": "predict", "cell": {"num_visual": 1}, "device": "abacus"}, "abacus"),
        ({"do": "predict", "cell": {"num_visual": 1, "kernel": "x"}, "device": CARD}, "'x'"),
        ({"do": "limit", "cell": [], "device": CARD}, "an object"),
        ({"do": "exec", "cell": "import os"}, "one of predict, limit, batch, fields, unit, names"),
        (
            {
                "do": "predict",
                "cell": {"num_visual": 1, "scope": "lvlm"},
                "device": CARD,
                "pictures": {"images": ["/etc/passwd"]},
            },
            "'pictures' has a resolution",
        ),
        (
            {
                "do": "fields",
                "cell": {"num_visual": 1, "scope": "lvlm"},
                "device": CARD,
                "pictures": {"resolution": "0x9"},
            },
            "resolution '0x9'",
        ),
    ],
)
def test_a_wrong_question_is_one_line(predictor: Predictor, question: dict, said: str) -> None:
    error = predictor.ask(question)["error"]
    assert said in error
    assert "\n" not in error


def test_what_a_time_is_worth_is_said_beside_it(predictor: Predictor) -> None:
    cell = {"num_visual": 4096, "attention": "d_attn", "scope": "decoder", "pass": "train"}
    answer = predictor.ask({"do": "predict", "cell": cell, "device": CARD})
    (first, *rest) = certainty(answer["flags"])
    assert "sdpa attention was not measured: taken to be as fast as flash attention" in rest
    assert first.startswith("fitted to measurements: h100-80gb")
    assert "held-out error of training step" in first


def test_what_all_times_are_worth_is_said_once() -> None:
    cell = make_cell(num_visual=64, kernel="sdpa")
    other = cell.replace(attention="d_attn")
    both = [
        (cell, {"flags": ["calibrated: 8 records"]}),
        (other, {"flags": ["calibrated: 8 records", "beyond_calibration: far", "mfu: none"]}),
    ]
    assert certainty_of_all(both) == [
        "fitted to measurements: 8 records",
        "extrapolated: far (of D-Attn · sdpa)",
    ]


LORA_ON_24_GB = {
    "model": "qwen3-vl-8b",
    "scope": "lvlm",
    "pass": "train",
    "num_text": 400,
    "logits": "text",
    "checkpoint": True,
    "lora": "r=16",
}


def test_four_images_with_lora_on_a_card_of_24_gb(predictor: Predictor) -> None:
    """The tower sees 1280x720 as it is: 880 tokens an image."""
    shown = {"resolution": "1280x720", "count": 4}
    question = {"device": "rtx-4090-24gb", "pictures": shown}
    cell: dict[str, object] = {**LORA_ON_24_GB, "num_visual": 1}
    fields = predictor.ask({"do": "fields", "cell": cell, **question})
    assert fields == {"num_visual": 4 * 880, "layout": "V,T"}
    found = {
        dtype: predictor.ask(
            {
                "do": "predict",
                "cell": {**cell, **fields, "weights_dtype": dtype, "optimizer": "adamw8bit"},
                **question,
            }
        )
        for dtype in (None, "int4")
    }
    assert found["int4"]["status"] == "ok"
    weights = [each["metrics"]["weight_bytes"] for each in found.values()]
    assert weights[0] - weights[1] > 9e9
    assert found[None]["details"]["pictures_asked"] == shown


def test_the_first_token_and_those_after_it(ask: Ask) -> None:
    fields = {"num_visual": 7_290, "num_text": 64, "scope": "lvlm", "logits": "text"}
    cell = make_cell(model="llama-3.2-1b", cache=True, **fields)
    prefill = ask("predict", cell)
    line = generation(cell, prefill, ask)
    assert line.startswith(f"First token after {quantity(prefill['metrics']['time_s'], 's')}")
    assert " (tower " in line
    step = ask("predict", cell.replace(pass_="decode", cache=False, logits="all"))
    assert f"then {quantity(step['metrics']['time_s'], 's')} a token" in line
    assert "such contexts fits" in line
    packed = cell.replace(weights_dtype="int8")
    assert "time a token: " in generation(packed, ask("predict", packed), ask)


def test_without_torch_it_says_so() -> None:
    lacking = Predictor([sys.executable, "-c", WITHOUT_TORCH, "ask"])
    with pytest.raises(Failure, match="torch is not installed"):
        lacking.ask({"do": "names"})


def test_a_silent_predictor_is_ended_and_started_again() -> None:
    code = "import sys, time; print('{}', flush=True); sys.stdin.readline(); time.sleep(60)"
    silent = Predictor([sys.executable, "-c", code], answer_s=0.2)
    for _ in range(2):
        with pytest.raises(Failure, match=r"no answer within 0\.2 s"):
            silent.ask({"do": "names"})


def test_what_does_not_fit_is_told_what_would(ask: Ask) -> None:
    """Each line of advice is a cell that the predictor says fits."""
    cell = make_cell(
        num_visual=32_768,
        scope="decoder",
        logits="text",
        attention="s_attn",
        kernel="eager",
        **{"pass": "forward"},
    )
    answer = ask("predict", cell)
    assert not fits(answer)
    found = list(advice(cell, answer, ask))
    assert found[0].startswith("a fused kernel (`--kernel sdpa`): peak ")
    assert fits(ask("predict", cell.replace(kernel="sdpa")))
    need = peak_of(answer) or 0
    assert (f"`{larger_cards(need, CARD)[0]}`" in found[-1]) if larger_cards(need, CARD) else True


def test_all_changes_together_are_those_of_each_alone() -> None:
    cell = make_cell(
        num_visual=64, scope="decoder", kernel="eager", attention="d_attn", **{"pass": "train"}
    )
    found = together(cell)
    assert (found.kernel, found.logits, found.chunk) == ("sdpa", "text", 4096)
    assert found.tiled
    assert found.checkpoint
    assert found.offload
    assert (found.zero, found.offload_optimizer) == (2, True)
    assert together(found) == found


def test_training_states_are_spread_over_cards(ask: Ask) -> None:
    cell = make_cell(num_visual=512, scope="decoder", logits="text", **{"pass": "train"})
    answer = ask("predict", cell)
    assert not fits(answer)  # 7 billion parameters: 16 bytes each before any activation.
    (line,) = [line for line in advice(cell, answer, ask) if line.startswith("ZeRO 3 over")]
    assert "ZeRO 3 over 2 GPUs" in line
    assert fits(ask("predict", cell.replace(zero=3, world_size=2)))
    (alone,) = [line for line in advice(cell, answer, ask) if line.startswith("AdamW's states")]
    assert "`--zero 2 --offload-optimizer`): peak 1" in alone  # Weights, and what is on its way.


def test_both_baselines_stand_beside_every_system() -> None:
    assert systems(["s_attn", "d_attn"], "sdpa") == [
        ("s_attn", "eager"),
        ("s_attn", "sdpa"),
        ("d_attn", "sdpa"),
    ]


def test_a_kernel_that_serves_the_model_is_found(ask: Ask) -> None:
    """SDPA has no soft-capping, which Gemma 2 needs."""
    cell = make_cell(num_visual=64, model="gemma-2-9b", scope="layer")
    own, answer = predicted(cell, System("d_attn", "fused"), ask)
    assert (own.kernel, answer["status"]) == ("flex", "ok")
    own, answer = predicted(cell.replace(model="llama-3.2-1b"), System("himix", "fused"), ask)
    assert (own.kernel, own.logits, answer["status"]) == ("sdpa", "text", "ok")
    own, answer = predicted(cell, System("d_attn", "sdpa"), ask)
    assert (own.kernel, answer["status"]) == ("sdpa", "unsupported")


def test_cost_is_only_what_the_reader_s_price_makes() -> None:
    assert cost(36.0, 2.0, 32, 1_000) == pytest.approx(640.0)
    assert cost(36.0, None, 32, 1_000) is None
    assert cost(None, 2.0, 32, 1_000) is None


def test_a_link_restores_the_plan(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = {
        "store": "like_default.db",
        "look_at": "tokens",
        "visual": "4096",
        "pass": "forward",
        "model": "llama-3.2-1b",
        "device": "a100-40gb",
        "price": "3.5",
        "currency": "EUR",
        "attentions": "D-Attn",
    }
    test = page("planner", stores, monkeypatch, **link)
    assert not test.exception
    assert "4,096 visual tokens" in words(test)
    assert "**D-Attn · sdpa**" in words(test)
    assert "D-Attn · sdpa is the fastest that fits" in words(test)
    assert "HiMix" not in words(test)
    assert "EUR** for 1,000 iterations" in words(test)
    # No money without a currency, nor without a price.
    test.get_by_key("currency").set_value("").run()
    assert "for 1,000 iterations" not in words(test)
    test.get_by_key("currency").set_value("EUR").run()
    test.get_by_key("price").set_value(None).run()
    assert "for 1,000 iterations" not in words(test)


def test_the_cheapest_way_to_fit_stands_there_and_others_on_request(
    stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = {
        "look_at": "tokens",
        "visual": "12000",
        "pass": "forward",
        "model": "llama-3.2-1b",
        "device": "rtx-4090-24gb",
        "attentions": "S-Attn",
    }
    test = page("planner", stores, monkeypatch, **link)
    assert not test.exception
    assert "a fused kernel" in words(test)
    larger = "as it is on `"
    assert larger not in words(test)
    test.session_state["ways s_attn eager"] = True
    test.run()
    assert not test.exception
    assert words(test).count("a fused kernel") == 1
    assert larger in words(test)


def test_a_tower_sees_whole_images(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = {
        "look_at": "tokens",
        "visual": "1000",
        "pass": "forward",
        "tower": "true",
        "attentions": "D-Attn",
        "model": "llama-3.2-1b",
    }
    test = page("planner", stores, monkeypatch, **link)
    assert not test.exception
    assert "1,458 visual tokens" in words(test)
    assert "held-out error" in words(test) or "was held out" in words(test)
    assert "rounded up from 1,000 to 2 whole images of 729" in words(test)
    assert "cannot run" not in words(test)


def test_lora_on_one_card_is_a_few_choices(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = {
        **QUESTION,
        "weights_dtype": "int4",
        "attentions": "S-Attn",
        "kernel": "sdpa",
    }
    test = page("planner", stores, monkeypatch, **link)
    assert not test.exception
    assert "3,520 visual tokens: 4 images" in words(test)
    assert "S-Attn · sdpa is the fastest that fits" in words(test)


def test_no_folder_of_stores_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = page(
        "planner", tmp_path, monkeypatch, look_at="tokens", visual="64", attentions="HiMix"
    )
    assert not test.exception
    assert "fits" in words(test)


SLOW = """
import json, os, sys, time
print("{}", flush=True)
for line in sys.stdin:
    time.sleep(0.2)
    print(json.dumps({"pid": os.getpid(), "asked": json.loads(line)}), flush=True)
"""


def test_several_predictors_share_the_questions() -> None:
    many = Predictors(3, lambda: Predictor([sys.executable, "-c", SLOW]))
    questions = [{"do": "predict", "n": n % 6} for n in range(12)]
    try:
        first = many.ask(questions[0])
        assert many.ask(questions[0]) is first  # Asked once.
        wait_for(lambda: many.free == 3)
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(many.ask, questions))
    finally:
        many.close()
    assert [answer["asked"] for answer in answers] == questions
    assert len({answer["pid"] for answer in answers}) == 3
    for n in range(6):
        assert answers[n] is answers[n + 6]


def test_a_question_that_failed_is_asked_again() -> None:
    code = "import sys; print('{}', flush=True); sys.stdin.readline(); sys.exit('no luck')"
    many = Predictors(2, lambda: Predictor([sys.executable, "-c", code]))
    try:
        for _ in range(2):
            with pytest.raises(Failure, match="no luck"):
                many.ask({"do": "names"})
        assert many.free == 1  # None was added to one that does not answer.
    finally:
        many.close()


def test_predictors_that_do_not_come_up_are_done_without() -> None:
    works, fails = SLOW, "import sys; sys.exit('no memory')"
    made = iter([works, fails, fails])
    many = Predictors(3, lambda: Predictor([sys.executable, "-c", next(made)]))
    try:
        assert [many.ask({"n": n})["asked"] for n in range(3)] == [{"n": n} for n in range(3)]
        assert many.free == 1
    finally:
        many.close()


def wait_for(met: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "not met in time"
        time.sleep(0.02)


def test_everybody_who_asked_learns_that_it_failed() -> None:
    code = """
import sys, time
print("{}", flush=True)
sys.stdin.readline()
time.sleep(0.3)
sys.exit("no luck")
"""
    many = Predictors(1, lambda: Predictor([sys.executable, "-c", code]))
    try:
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(many.ask, {"do": "names"}) for _ in range(3)]
        assert [str(each.exception()) for each in asked] == [
            "the predictor did not run: no luck"
        ] * 3
    finally:
        many.close()


def test_the_answer_on_top_is_the_fastest_that_fits() -> None:
    def told(status: str, seconds: float) -> dict:
        return {
            "status": status,
            "device": "h100-80gb",
            "metrics": {"time_s": seconds, "peak_bytes": 2**30},
            "details": {"capacity_bytes": 2**36},
        }

    eager, fused, ours = (
        make_cell(num_visual=64, attention=a, kernel=k)
        for a, k in (("s_attn", "eager"), ("s_attn", "sdpa"), ("d_attn", "sdpa"))
    )
    answers = [(eager, told("oom", 1.0)), (fused, told("ok", 3.0)), (ours, told("ok", 2.0))]
    assert best_of(answers) == (
        "D-Attn · sdpa is the fastest that fits, 2 s an iteration and 1.0 GiB of 64.0 GiB:"
        " 1.50× as fast as S-Attn · sdpa; S-Attn · eager does not fit (predicted for h100-80gb)."
    )
    assert "None of these systems fits" in str(best_of(answers[:1]))
    assert best_of([(eager, {"error": "no"})]) is None
    assert given_up(answers) == (
        "D-Attn gives up V2V, and needs training. Quality is not predicted."
    )
    assert given_up(answers[:2]) is None


def test_a_measured_threshold_stands_for_the_cell_that_it_was_measured_of() -> None:
    with Store.open(STORE) as store:
        frame = prepared(store.frame(metrics=()))
    cell = make_cell(
        scope="decoder",
        attention="d_attn",
        kernel="sdpa",
        num_visual=74_000,
        num_text=400,
        logits="text",
        checkpoint=True,
        zero=3,
        world_size=32,
        **{"pass": "train"},
    )
    assert measured_threshold(frame, cell, "h100-80gb") == (
        "Measured: 132,687 visual tokens ran, 134,013 were out of memory (flash,"
        " NVIDIA H100 80GB HBM3,"
        " emulated: 1 of 32 ranks, 2 of 32 layers, nothing communicated)"
    )
    assert "10,887" in str(
        measured_threshold(frame, cell.replace(attention="s_attn", kernel="eager"), "h100-80gb")
    )
    # Another card, another text, another system: nothing was measured of those.
    assert measured_threshold(frame, cell, "a100-80gb") is None
    assert measured_threshold(frame, cell.replace(num_text=64), "h100-80gb") is None
    assert measured_threshold(frame, cell.replace(attention="himix"), "h100-80gb") is None
