"""Planner: will it fit, how long does it take, what does it cost; each system side by side."""

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from workbench.analysis import attention_name
from workbench.dashboard.controls import one
from workbench.dashboard.options import choose_options
from workbench.dashboard.plan import (
    FUSED,
    Answer,
    Ask,
    Price,
    System,
    best_of,
    certainty_of_all,
    generation,
    given_up,
    is_answered,
    predicted,
    systems,
)
from workbench.dashboard.planner_card import (
    draw_largest,
    draw_measured,
    draw_verdict,
    draw_ways_to_fit,
)
from workbench.dashboard.predictor import Predictors
from workbench.dashboard.shell import STYLE, answer, frame_at_hand
from workbench.dashboard.tokens import MOST_MINUTES, Eye, eye
from workbench.telling.text import listed, markdown
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.errors import Failure, RequestError
from workbench.vocabulary.fields import MAX_TOKENS
from workbench.vocabulary.systems import entries
from workbench.vocabulary.units import plural

MODEL, DEVICE = "mistral-7b-v0.3", "h100-80gb"
FIRST_SYSTEMS = tuple(name for name, each in entries()["attention"].items() if each.colors)
PASSES = {"train": "a training step", "forward": "a prefill", "decode": "one decoded token"}
AT_ONCE = 8
"""Questions that wait for a predictor."""


@st.cache_resource(show_spinner=False)
def _predictors() -> Predictors:
    return Predictors()


def _ask(
    predictors: Predictors, device: str, images: dict[str, Any] | None, do: str, cell: Cell
) -> Answer:
    """``images`` are the sizes that a tower sees, which a limit, being of all |V|, has none of."""
    fields = cell.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    fields["num_visual"] = 1 if do == "limit" else cell.num_visual
    sees = images is not None and cell.scope == "lvlm" and cell.pass_ != "decode"
    pictures = {"pictures": images} if sees and do in ("predict", "fields") else {}
    return predictors.ask({"do": do, "cell": fields, "device": device, **pictures})


def render() -> None:
    """Draw the page."""
    st.html(STYLE)
    records = frame_at_hand()
    st.title("Will it fit, and what does it cost?")
    top = st.container()
    try:
        with st.spinner("The predictor starts; the first time it loads torch."):
            names = _predictors().ask({"do": "names"})
    except Failure as error:
        st.warning(f"{markdown(error)}. Predictions need torch: `pip install torch transformers`.")
        return
    choice = _choose(names)
    if choice is None:
        return
    cell, device, price, front_end, picked, images = choice
    ask = partial(_ask, _predictors(), device, images)
    try:
        cell, rounded = _seen_by_tower(cell, images, ask)
    except (Failure, RequestError) as error:
        st.error(markdown(error))
        return
    place = "one card" if cell.world_size == 1 else f"each of {cell.world_size:,} cards"
    st.markdown(
        markdown(
            f"{cell.num_visual:,} visual tokens: {front_end.said(cell.num_visual)}.{rounded}"
            f" Predicted for {PASSES[cell.pass_]} on {place}, logits of {cell.logits}"
            " rows: nothing"
            " is measured here."
        )
    )
    try:
        with st.spinner("Predicting …"):
            _side_by_side(cell, ask, price, front_end, picked, top, device, records)
    except Failure as error:
        st.error(markdown(error))


class Chosen(NamedTuple):
    """What the controls say."""

    cell: Cell
    device: str
    price: Price | None
    seen: Eye
    systems: list[System]
    images: dict[str, Any] | None
    """The size of the images and their number; None where no images were chosen."""


def _choose(names: Answer) -> Chosen | None:
    """The controls and what they ask for; None, with its line, where that is impossible."""
    first, second, third = st.columns(3, gap="medium")
    with first:
        models = sorted(names["models"])
        model = st.selectbox(
            "Model", models, index=models.index(MODEL), key="model", bind="query-params"
        )
        cards = [name for name, card in DEVICES.items() if card.capacity_bytes]
        device = st.selectbox(
            "Card", cards, index=cards.index(DEVICE), key="device", bind="query-params"
        )
        pass_ = one("For", list(PASSES), "pass")
    with second:
        entry = one("Look at", ("images", "video", "tokens"), "look_at")
        count = _amount(entry)
        front_end = eye(str(model), with_fps=entry == "video")
    with third:
        options = choose_options(pass_, names)
        price = _price()
    attentions = sorted(names["attentions"], key=lambda n: (n != "s_attn", n))
    picked = st.pills(
        "Systems",
        attentions,
        selection_mode="multi",
        default=list(FIRST_SYSTEMS),
        format_func=attention_name,
        key="attentions",
        bind="query-params",
    )
    kernels = ["fused", *(name for name in names["kernels"] if name != "eager")]
    kernel = one(
        "Kernel",
        kernels,
        "kernel",
        help=f"fused: the first of {listed(FUSED)} that serves the model",
    )
    if front_end is None:
        return None
    visual = {
        "tokens": lambda: int(count),
        "images": lambda: int(count) * front_end.per_image,
        "video": lambda: front_end.of_minutes(count),
    }[entry]()
    if visual > MAX_TOKENS:
        st.error(f"{visual:,} visual tokens: at most {MAX_TOKENS:,} make a cell.")
        return None
    try:
        cell = make_cell(
            model=model,
            num_visual=visual,
            **{"pass": pass_},
            **options,
            logits="all" if pass_ == "decode" else "text",
        )
    except RequestError as error:
        st.error(markdown(error))
        return None
    columns = systems(list(picked or FIRST_SYSTEMS), str(kernel))
    images = None
    if entry == "images":
        images = {"resolution": f"{front_end.width}x{front_end.height}", "count": int(count)}
    return Chosen(cell, str(device), price, front_end, columns, images)


def _price() -> Price | None:
    """What a card costs an hour, once both the number and its currency are given."""
    left, right = st.columns([2, 1])
    with left:
        amount = st.number_input(
            "Price of a card for an hour",
            0.0,
            None,
            None,
            key="price",
            bind="query-params",
            placeholder="none",
            format="%g",
        )
    with right:
        currency = st.text_input(
            "Currency", key="currency", bind="query-params", placeholder="EUR", max_chars=8
        )
    if amount is not None and not currency:
        st.caption("Give the currency too, and costs are shown.")
    return Price(amount, currency) if amount is not None and currency else None


def _seen_by_tower(cell: Cell, images: dict[str, Any] | None, ask: Ask) -> tuple[Cell, str]:
    """The cell with the tokens that its tower makes of what is shown, and that in words.

    Raises RequestError where the tower does not take such images.
    """
    if cell.scope != "lvlm" or images is None or cell.pass_ == "decode":
        return _whole_images(cell, ask)
    fields = ask("fields", cell)
    if "error" in fields:
        raise RequestError(str(fields["error"]))
    own = cell.replace(num_visual=fields["num_visual"], layout=fields["layout"])
    if own.num_visual == cell.num_visual:
        return own, ""
    return own, f" The model's own tower makes {own.num_visual:,} tokens of them."


def _whole_images(cell: Cell, ask: Ask) -> tuple[Cell, str]:
    """The cell with as many visual tokens as its tower can make, at least; and that in words."""
    if cell.scope != "lvlm":
        return cell, ""
    unit = ask("unit", cell).get("unit", 1)
    images = -(-cell.num_visual // unit)
    if images * unit == cell.num_visual:
        return cell, ""
    words = (
        f" The model's own tower makes {unit:,} tokens of an image: rounded up from"
        f" {cell.num_visual:,} to {plural(images, 'whole image')} of {unit:,}."
    )
    return cell.replace(num_visual=images * unit), words


def _amount(given: str) -> float:
    if given == "images":
        return st.number_input("Images", 1, 1_000_000, 64, key="images", bind="query-params")
    if given == "video":
        return st.number_input(
            "Minutes",
            0.01,
            float(MOST_MINUTES),
            10.0,
            key="minutes",
            bind="query-params",
            format="%g",
        )
    return st.number_input(
        "Visual tokens |V|", 0, MAX_TOKENS, 74_000, key="visual", bind="query-params"
    )


def _side_by_side(
    cell: Cell,
    ask: Ask,
    price: Price | None,
    seen: Eye,
    picked: Sequence[System],
    top: Any,
    device: str,
    records: pd.DataFrame | None,
) -> None:
    """A column for each system: the predictions of all first, then what takes longer."""
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        _draw(
            [pool.submit(predicted, cell, system, ask) for system in picked],
            ask,
            price,
            seen,
            pool,
            top,
            device,
            records,
        )
    finally:
        # The reader may have moved on: what nobody waits for is not asked.
        pool.shutdown(wait=False, cancel_futures=True)


def _draw(
    answers: Sequence[Future[tuple[Cell, Answer]]],
    ask: Ask,
    price: Price | None,
    seen: Eye,
    pool: Executor,
    top: Any,
    device: str,
    records: pd.DataFrame | None,
) -> None:
    notes = st.container(gap="xxsmall")
    with st.container(key="in-pairs"):
        columns = st.columns(len(answers), border=True)
    cards = []
    for coming, column in zip(answers, columns, strict=True):
        with column:
            own, reply = coming.result()
            st.markdown(f"**{attention_name(own.attention)} · {own.kernel}**")
            draw_verdict(own, reply, price)
            cards.append((own, reply, st.container(), st.container()))
    tight = [(own, reply, more) for own, reply, _, more in cards if reply.get("status") == "oom"]
    with top:
        answers_of = [(own, reply) for own, reply, *_ in cards]
        answer([best_of(answers_of), given_up(answers_of)])
    with notes:
        replies = [(own, reply) for own, reply, *_ in cards if is_answered(reply)]
        for line in certainty_of_all(replies):
            st.caption(markdown(line))
    runs = [(own, place) for own, reply, place, _ in cards if is_answered(reply)]
    limits = [pool.submit(ask, "limit", own) for own, _ in runs]
    for own, reply, more in tight:
        with more:
            draw_ways_to_fit(own, reply, ask, pool)
    served = [
        pool.submit(generation, own, reply, ask) if own.pass_ != "train" else None
        for own, reply, *_ in cards
        if is_answered(reply)
    ]
    for (own, place), limit, serving in zip(runs, limits, served, strict=True):
        with place:
            draw_largest(limit.result(), seen)
            if serving is not None:
                st.markdown(markdown(serving.result()))
            draw_measured(records, own, device)
