"""Folders that are no whole model: one line that says what they are."""

import json

import pytest

from workbench.inputs.model_files import model_files
from workbench.vocabulary.errors import RequestError

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"adapter_config.json": ADAPTER},
            ": it holds an adapter; give the model under it 'Qwen/Qwen2.5-VL-7B-Instruct', and "
            "--lora",
        ),
        (
            {"adapter_config.json": {"base_model_name_or_path": 3}},
            ": it holds an adapter; give the model under it, and --lora",
        ),
        ({"params.json": {"dim": 8}}, ": its params.json is of another form, which is not read"),
        (
            {"model-Q4_K_M.gguf": {}},
            ": its GGUF files are not read; give the model that they were made of",
        ),
        ({"README.md": {}}, ""),
    ],
)
def test_a_folder_without_a_config_says_what_it_is(files, message, tmp_path):
    for name, fields in files.items():
        (tmp_path / name).write_text(json.dumps(fields))
    with pytest.raises(RequestError) as refusal:
        model_files(str(tmp_path)).config()
    assert str(refusal.value) == f"model {str(tmp_path)!r}: the folder has no config.json{message}"
