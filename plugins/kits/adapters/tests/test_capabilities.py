"""The capabilities that adapters of inference services have in common."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llamastack_adapters.capabilities import inference_capabilities


def test_only_the_differences_are_said() -> None:
    usual, other = inference_capabilities(), inference_capabilities(logprobs="unsupported", tools="since 2.1")
    assert {name for name in usual if usual[name] != other[name]} == {"logprobs", "tools"}
    assert {name for name in usual if usual.refused(name)} == {"registration", "unregister"}


def test_a_name_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no capability of the inference API: log_probs"):
        inference_capabilities(log_probs="unsupported")


def test_it_is_cheap_to_import() -> None:
    code = "import sys, llamastack_adapters.capabilities; assert not {'httpx', 'aiohttp'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
