"""The suite of stores as users meet it: each test runs pytest in a process of its own."""

from __future__ import annotations

import json

import pytest
from installed_fakes import install

STORE_SUITE = """
from llamastack_conformance import StoreConformance

class TestMemory(StoreConformance):
    store_type = "memory"
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing these plugins takes longer than a whole run here, and no run here uses them.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:schemathesis -p no:hypothesispytest")


def run_store(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_a_store_without_a_test_file(pytester: pytest.Pytester) -> None:
    result = run_store(pytester, "--llamastack-store", "memory", "--llamastack-tiers", "live", "-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*::TestMemoryStore::test_records_as_a_dict PASSED*",
            "*conformance of store=memory (llamastack *",
            "not applicable: shared.at-once, reopened.keeps: the class says `shared = False`*",
            "conforms: * passed, 2 not applicable",
        ]
    )


def test_a_store_as_a_class(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_store=STORE_SUITE)
    result = run_store(pytester, "--llamastack-tiers", "static", "--llamastack-report", "r.json")
    assert result.ret == 0
    [store] = json.loads((pytester.path / "r.json").read_text())["providers"]
    assert (store["api"], store["provider_type"], store["suite"]) == ("store", "memory", "TestMemory")
    assert [check["status"] for check in store["checks"]] == ["passed", "passed"]


def test_a_store_has_settings(pytester: pytest.Pytester) -> None:
    config = pytester.path / "run.yaml"
    config.write_text(f"store: {{type: sqlite, config: {{path: {pytester.path}/own/store.sqlite}}}}\n")
    named = ("--llamastack-store", "sqlite", "--llamastack-config", config.name, "-k", "shared or private")
    result = run_store(pytester, *named)
    assert result.ret == 0
    assert (pytester.path / "own" / "store.sqlite").exists()
    result.stdout.fnmatch_lines(["not applicable: files.private: the store keeps no files in the folder of its stack"])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("memory", "store: {type: sqlite}", "*store.type of the run config is 'sqlite'; wanted: 'memory'*"),
        ("memory", "store: {config: {path: x}}", "*store.config.path: unknown field"),
        ("missing", "{}", "*'missing'*sqlite*"),
    ],
)
def test_a_store_that_cannot_be_tried(pytester: pytest.Pytester, name: str, text: str, says: str) -> None:
    config = pytester.path / "run.yaml"
    config.write_text(text)
    named = ("--llamastack-store", name, "--llamastack-config", config.name, "-k", "keys")
    result = run_store(pytester, *named)
    assert result.ret == 1
    result.stdout.fnmatch_lines([says])


def test_a_store_of_another_package(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    install(pytester.path, "llamastack-store-acme", {"llamastack.stores": {"acme": "acme_store:AcmeStore"}})
    pytester.makepyfile(
        acme_store="from llamastack.stack.stores.sqlite import SqliteStore\nclass AcmeStore(SqliteStore): ..."
    )
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    named = ("--llamastack-store", "acme", "--llamastack-tiers", "stress,failure", "-k", "processes or disk or private")
    result = run_store(pytester, *named)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*conformance of store=acme (llamastack-store-acme *", "conforms: 4 passed"])
