"""`--llamastack-record` and `--llamastack-replay`, each in a run of pytest of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scripted_openai import scripted_openai

KEY = "sk-not-for-a-cassette-4711"
CONFIG = """
providers:
  inference:
  - {provider_id: o, provider_type: "remote::openai", config: {url: "URL", api_key: KEY}}
x-conformance: {parallel_calls: 4}
"""
PROVIDER = ("--llamastack-provider", "inference=remote::openai", "--llamastack-config", "provider.yaml")
SOME = ("-k", "life_starts or chat_completion_works or cut")


def run(pytester: pytest.Pytester, url: str, key: str, *arguments: str) -> pytest.RunResult:
    (pytester.path / "provider.yaml").write_text(CONFIG.replace("URL", url).replace("KEY", key))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *PROVIDER, *arguments)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing these plugins takes longer than a whole run here, and no run here uses them.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:schemathesis -p no:hypothesispytest")


def test_recorded_once_replayed_without_backend_and_key(pytester: pytest.Pytester) -> None:
    with scripted_openai() as url:
        result = run(pytester, url, KEY, *SOME, "--llamastack-record", "c.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*conformance: cassettes*", "c.json: recorded * exchanges of * checks"])
    assert KEY not in (pytester.path / "c.json").read_text()
    result = run(pytester, "http://127.0.0.1:9/v1", "none", *SOME, "--llamastack-replay", "c.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*conformance: cassettes*", "c.json: * checks replayed; up to date"])


def test_a_folder_of_cassettes_with_several_processes(pytester: pytest.Pytester) -> None:
    with scripted_openai() as url:
        several = ("-n", "2", "--dist", "loadgroup")
        result = run(pytester, url, KEY, *SOME, *several, "--llamastack-record", "cassettes")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["cassettes/TestRemoteOpenaiInference.json: recorded * exchanges of * checks"])
    assert json.loads((pytester.path / "cassettes/TestRemoteOpenaiInference.json").read_text())["checks"]


def test_a_request_that_was_not_recorded_fails_the_run(pytester: pytest.Pytester) -> None:
    with scripted_openai() as url:
        run(pytester, url, KEY, "-k", "life_starts", "--llamastack-record", "c.json")
    nowhere = "http://127.0.0.1:9/v1"
    result = run(pytester, nowhere, KEY, "-k", "chat_completion_works", "--llamastack-replay", "c.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["got: *c.json has no answer to POST /v1/chat/completions*", "mend: *record again*"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--llamastack-record", "a.json", "--llamastack-replay", "a.json"), "use one of the two"),
        (("--llamastack-replay", "none.json"), "none.json: cannot be read"),
        (("--llamastack-record", "a.json", "-n", "2", "--dist", "load"), "with -n use --dist loadgroup"),
    ],
)
def test_options_that_are_wrong(pytester: pytest.Pytester, arguments: tuple[str, ...], message: str) -> None:
    result = run(pytester, "http://127.0.0.1:9/v1", KEY, "-k", "life_starts", *arguments)
    assert result.ret != 0
    assert message in result.stdout.str() + result.stderr.str()


def test_a_store_has_no_backend(pytester: pytest.Pytester) -> None:
    asked = ("--llamastack-store", "sqlite", "-k", "records_keys", "--llamastack-record", "a.json")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *asked)
    assert result.ret == 1
    assert "a store has no backend that could be recorded" in result.stdout.str()
