"""Every attention system behind every reducer at scope lvlm: between tower and decoder."""

import pytest

from tests.lvlm.definitions import settings_of, step_settings_of
from tests.lvlm.test_reduce import NAMES, both, cell_of
from tests.small import small_lvlm
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.probe.counting.trace import trace
from workbench.vocabulary.errors import RequestError, Unsupported

OWN_WIDTH = ("himix", "saisa")
"""Systems without an adapter."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def refusal_of(attention, name):
    """What a system says of a reducer that it does not serve; None of one that it does."""
    if attention == "cross_lmm":
        return f"reduce {name}: cross_lmm pools the tower's features itself"
    if attention in OWN_WIDTH and name == "pixel_shuffle":
        return f"reducer pixel_shuffle widens the features, whose width {attention} keeps"
    return None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", sorted(SYSTEMS))
def test_every_system_runs_behind_every_reducer_of_images(attention, name, folder):
    """Tower, reducer, adapter and decoder cost what their closed forms say, or a name refuses."""
    settings = {attention: step_settings_of(attention), name: settings_of(name)}
    fields = {"num_visual": 32, "model": small_lvlm("mistral", folder)}
    if attention in OWN_WIDTH:  # They take SigLIP's features, so an image of the paper's tower.
        fields, settings = {"num_visual": 729}, {}
    cell = cell_of(folder, attention=attention, reduce=name, settings=both(**settings))
    cell = cell.replace(scope="lvlm", layout="T,V,T", **fields)
    refused = refusal_of(attention, name)
    if refused is not None:
        with pytest.raises((RequestError, Unsupported), match=refused):
            trace(cell)
        return
    workload, found = build(cell, "meta"), trace(cell)
    assert found.flops == found.model_flops
    assert found.params == workload.num_parameters
