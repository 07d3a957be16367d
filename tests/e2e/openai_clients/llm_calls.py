"""`llm`, the command, with its openai plugin."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from checks import CITY_SCHEMA, QUESTION, SETTINGS, check, check_where_translated, equal
from click.testing import CliRunner
from llm.cli import cli

HOME = Path(os.environ["LLM_USER_PATH"])
SHORT = ("-o", "temperature", "0", "-o", "max_tokens", "4")


def configure() -> None:
    here: dict[str, Any] = {"model_name": SETTINGS.chat_model, "api_base": SETTINGS.url}
    models = [
        {"model_id": "ours", "supports_schema": True, "supports_tools": True, **here},
        {"model_id": "ours-text", "completion": True, **here},
        {"model_id": "unknown", **here, "model_name": "nope"},
    ]
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    (HOME / "extra-openai-models.yaml").write_text(json.dumps(models))  # which is YAML, too


def llm(*arguments: str, fails: bool = False) -> str:
    """Run the command, in this process to save its start; gives its output, or what it says of its failure."""
    done = CliRunner().invoke(cli, [*arguments])
    assert (done.exit_code != 0) == fails, done.output
    return done.output.strip()


@check
def prompt() -> None:
    whole = llm("-m", "ours", "--no-stream", *SHORT, QUESTION)
    assert whole
    equal(llm("-m", "ours", *SHORT, QUESTION), whole)
    with sqlite3.connect(HOME / "logs.db") as logs:
        first, second = logs.execute("select input_tokens, output_tokens from turns order by id").fetchall()
    assert first[0] > 0, first
    equal(first[1], 4)
    equal(second, first)


@check_where_translated
def in_a_process_of_its_own() -> None:
    command = [str(Path(sys.executable).with_name("llm")), "-m", "ours", *SHORT, QUESTION]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    equal(done.stdout.strip(), llm("-m", "ours", *SHORT, QUESTION))


@check
def conversation() -> None:
    assert llm("-m", "ours", "--continue", *SHORT, "And of Spain?")
    with sqlite3.connect(HOME / "logs.db") as logs:
        before, after = logs.execute("select input_tokens from turns order by id desc limit 2").fetchall()[::-1]
    assert after[0] > before[0] + 4, (before, after)  # what was said before is sent, too


@check
def schema() -> None:
    answer = llm("-m", "ours", "--schema", json.dumps(CITY_SCHEMA), "-o", "temperature", "0", QUESTION)
    equal(list(json.loads(answer)), ["city"])


@check_where_translated
def tools_are_offered() -> None:
    """So small a model may call a tool or not: the command gets along with either."""
    llm("-m", "ours", "-T", "llm_version", "--chain-limit", "2", *SHORT, "Which version is this?")
    with sqlite3.connect(HOME / "logs.db") as logs:
        ((offered, plain),) = logs.execute(
            "select (select input_tokens from turns order by id desc limit 1), (select min(input_tokens) from turns)"
        ).fetchall()
    assert offered > plain + 50, (offered, plain)  # the model has read of the tool


@check
def text() -> None:
    assert llm("-m", "ours-text", "-o", "max_tokens", "4", "The capital of France is")


@check
def refusals() -> None:
    assert "no model 'nope' is served" in llm("-m", "unknown", QUESTION, fails=True)


configure()
