"""Entry points that cannot be loaded are told without an import."""

from __future__ import annotations

from pathlib import Path

from installed_fakes import entry_points_in, install

from llamastack.stack.discovery import Discovery
from llamastack_cli.broken_entry_points import fault_of

INFERENCE = "llamastack.providers.inference"


def test_a_fault_is_known_without_importing(tmp_path: Path) -> None:
    install(tmp_path, "bad", {INFERENCE: {"gone": "package_that_is_gone:X", "odd": "no colon", "whole": "json"}})
    assert [fault_of(each) for each in Discovery(entry_points_in(tmp_path, real=False)).providers()] == [
        "package 'package_that_is_gone' is not installed",
        "entry point 'no colon' is not of the form 'package.module:attribute'",
        None,
    ]
