"""The planner's controls of a cell: how much runs, how it is trained or served."""

from collections.abc import Mapping
from typing import Any, get_args

import streamlit as st

from workbench.vocabulary.fields import WeightsDtype

AS_COMPUTED = "as computed"
"""A choice that leaves a data type to the cell."""


def choose_options(pass_: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a cell that the controls set; ``names`` are the predictor's."""
    left, right = st.columns(2)
    with left:
        batch = st.number_input("Batch", 1, 4096, 1, key="batch", bind="query-params")
        text = st.number_input(
            "Text tokens |T|", 1, 1_000_000, 400, key="text", bind="query-params"
        )
    options: dict[str, Any] = {"scope": "decoder", "batch": int(batch), "num_text": int(text)}
    with right:
        tower = st.toggle(
            "Tower too",
            key="tower",
            bind="query-params",
            help="Scope lvlm: the vision tower, the adapter and the decoder",
        )
        if tower:
            options["scope"] = "lvlm"
    if pass_ == "train":
        with right:
            options["checkpoint"] = st.toggle(
                "Checkpointing", True, key="checkpoint", bind="query-params"
            )
        return options | _training(names)
    return options | _serving(pass_)


def _training(names: Mapping[str, Any]) -> dict[str, Any]:
    left, right = st.columns(2)
    options: dict[str, Any] = {}
    with left:
        gpus = int(st.number_input("Cards", 1, 1_000_000, 32, key="cards", bind="query-params"))
        adapters = st.toggle(
            "LoRA",
            key="lora",
            bind="query-params",
            help="Adapters beside the decoder's frozen linear layers",
        )
        if adapters:
            rank = st.number_input("Rank r", 1, 65_536, 16, key="rank", bind="query-params")
            options["lora"] = f"r={int(rank)}"
    with right:
        if gpus > 1:
            zero = st.selectbox(
                "ZeRO stage", (0, 1, 2, 3), index=3, key="zero", bind="query-params"
            )
            options |= {"zero": int(zero or 0), "world_size": gpus}
        else:
            optimizer = _one_of("Optimizer", list(names["optimizers"]), "optimizer", "adamw")
            options["optimizer"] = optimizer
            if adapters:
                options |= _weights()
    return options


def _serving(pass_: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    left, right = st.columns(2)
    with left:
        if pass_ == "forward":
            options["cache"] = st.toggle(
                "Keep the cache",
                True,
                key="cache",
                bind="query-params",
                help="Keys and values of every layer stay, as whoever generates needs them",
            )
            options |= _weights()
    with right:
        if options.get("cache", True):
            dtype = _one_of("Cache in", [AS_COMPUTED, "fp8", "int8"], "cache_dtype", AS_COMPUTED)
            options |= {} if dtype == AS_COMPUTED else {"cache_dtype": dtype}
    return options


def _weights() -> dict[str, Any]:
    dtype = _one_of(
        "Frozen weights in", [AS_COMPUTED, *get_args(WeightsDtype)], "weights_dtype", AS_COMPUTED
    )
    return {} if dtype == AS_COMPUTED else {"weights_dtype": dtype}


def _one_of(label: str, names: list[str], key: str, first: str) -> str:
    choice = st.selectbox(label, names, index=names.index(first), key=key, bind="query-params")
    return str(choice or first)
