"""Llama 4's tiles against its own processor's functions, over a grid of sizes."""

import ast
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.visual.llama4 import Llama4
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError


def its_functions():
    """Those of its processor's module that choose a canvas; the rest of it needs torchvision."""
    package = find_spec("transformers").submodule_search_locations[0]
    file = Path(package) / "models" / "llama4" / "image_processing_llama4.py"
    names = ("get_factors", "find_supported_resolutions", "get_best_fit")
    tree = ast.parse(file.read_text())
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names]
    for function in wanted:
        function.decorator_list = []
    place = {"torch": torch, "defaultdict": defaultdict, "SizeDict": object}
    exec(compile(ast.Module(wanted, []), file, "exec"), place)
    return place["find_supported_resolutions"], place["get_best_fit"]


SUPPORTED, BEST = its_functions()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from([1, 4, 16]), st.booleans())
def test_tiles_are_its_processor_s(width, height, most, largest):
    known = torch.tensor(SUPPORTED(most, SimpleNamespace(height=336, width=336)))
    rows, columns = (int(side) // 336 for side in BEST((height, width), known, largest))
    found = Llama4(max_tiles=most, to_max_canvas=largest)
    assert found.canvas(width, height) == (rows, columns)
    whole = rows * columns + (rows * columns > 1)
    assert found.tokens_of_image(width, height) == 144 * whole


def test_an_example_of_its_processor():
    """200 × 300 pixels in tiles of 224: a canvas of 224 × 448, by its get_best_fit."""
    assert Llama4(image_size=224, max_tiles=3).canvas(300, 200) == (1, 2)


def test_of_the_catalogue_and_of_a_file():
    assert tokens("llama-4-scout-17b-16e", resolution="336x336")["num_visual"] == 144
    config = {"model_type": "llama4", "vision_config": {"pixel_shuffle_ratio": 0.3}}
    with pytest.raises(RequestError, match=r"pixel_shuffle_ratio 0.3: 1, 0.5 or 0.25"):
        Llama4().of_files(config, {}, "x")
    files = {"preprocessor_config.json": {"max_patches": 99}}
    with pytest.raises(RequestError, match="max_patches 99: at most 64"):
        Llama4().of_files({"vision_config": {}}, files, "x")
    files = {"preprocessor_config.json": {"resize_to_max_canvas": 1}}
    with pytest.raises(RequestError, match="resize_to_max_canvas 1: true or false"):
        Llama4().of_files({"vision_config": {}}, files, "x")
    files = {"preprocessor_config.json": {"resize_to_max_canvas": True}}
    filled = Llama4().of_files({"vision_config": {}}, files, "x")
    assert (filled.canvas(700, 336), Llama4().canvas(700, 336)) == ((3, 5), (1, 3))
    assert Llama4().markers_of_image(700, 336) == 3 + 3
