"""What the author of a provider sees of a run: each test runs pytest in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

CONFIG = """
providers:
  safety:
  - {provider_id: s, provider_type: "remote::sample"}
x-conformance:
  safe: forbidden
  unsafe: this is forbidden
"""
FILELESS = ("--llamastack-provider", "safety=remote::sample", "--llamastack-config", "provider.yaml")
DOWN = """
import pytest
from llamastack_conformance import InferenceConformance, provider_under_test

provider_under_test._STARTED_BY_S = 0.5

class TestOpenAI(InferenceConformance):
    provider_type = "remote::openai"
    config = {"providers": {"inference": [
        {"provider_id": "o", "provider_type": "remote::openai",
         "config": {"url": "http://127.0.0.1:1", "api_key": "sk-secret-of-the-test"}}]}}
"""
EXITS = """
from llamastack.provider import RemoteProviderSpec

SPEC = RemoteProviderSpec(
    api="safety", provider_type="exits", config_class="acme_code:Config", factory="acme_code:make", description="x"
)
"""
EXITING = """
import asyncio
from pydantic import BaseModel
from llamastack.provider import Deps
from llamastack_provider_sample.safety import SampleSafety

def ends(where):
    if where == "{where}":
        raise {raised}

class Config(BaseModel): ...

class Exits(SampleSafety):
    def __init__(self): ...
    async def initialize(self) -> None:
        ends("initialize")

async def make(config: Config, deps: Deps) -> Exits:
    ends("factory")
    return Exits()

ends("module")
"""
EXITING_SUITE = """
from llamastack_conformance import SafetyConformance, provider_under_test

provider_under_test._STARTED_BY_S = 0.5

class TestExits(SafetyConformance):
    provider_type = "exits"
    config = {"providers": {"safety": [{"provider_id": "e", "provider_type": "exits"}]}}
"""


@pytest.fixture(autouse=True)
def config(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Importing these plugins takes longer than a whole run here, and no run here uses them.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:schemathesis -p no:hypothesispytest -p no:cacheprovider")
    file = pytester.path / "provider.yaml"
    file.write_text(CONFIG)
    return file


def test_a_provider_that_is_never_healthy_fails_one_check(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_conformance=DOWN)
    result = pytester.runpytest_subprocess("--llamastack-tiers", "live", "--llamastack-report", "r.json")
    assert result.ret == 1
    [provider] = json.loads((pytester.path / "r.json").read_text())["providers"]
    failed = [check for check in provider["checks"] if check["status"] == "failed"]
    assert [check["id"] for check in failed] == ["life.starts"]
    assert failed[0]["got"].startswith("the provider is down: ")
    assert failed[0]["mend"].startswith("start the backend that the run config names")
    untried = [check for check in provider["checks"] if check["status"] == "not tried"]
    assert len(untried) > 20
    assert {check["detail"] for check in untried} == {failed[0]["got"]}
    assert not provider["conforms"]
    assert provider["counts"]["not tried"] == len(untried)
    shown = result.stdout.str().partition(" short test summary info ")[0]  # which has causes where CI is set
    assert shown.count("the provider is down") == 2  # of the failed check, and in the table


@pytest.mark.parametrize(
    ("where", "raised"),
    [
        ("module", "SystemExit(0)"),
        ("factory", "SystemExit(0)"),
        ("factory", "asyncio.CancelledError('gone')"),
        ("initialize", "SystemExit(0)"),
    ],
)
def test_a_provider_that_ends_the_process_fails_one_check(pytester: pytest.Pytester, where: str, raised: str) -> None:
    info = pytester.mkdir("acme_exits-0.1.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: acme-exits\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[llamastack.providers.safety]\nexits = acme_exits:SPEC\n")
    pytester.makepyfile(acme_exits=EXITS, acme_code=EXITING.format(where=where, raised=raised))
    pytester.makepyfile(test_conformance=EXITING_SUITE)
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess(
        "-k", "life or static_factory or static_protocol", "--llamastack-report", "r.json"
    )
    assert result.ret == 1
    assert "portal" not in result.stdout.str() + result.stderr.str()
    [provider] = json.loads((pytester.path / "r.json").read_text())["providers"]
    [failed] = [check for check in provider["checks"] if check["status"] == "failed"]
    assert failed["id"] == ("static.factory" if where == "module" else "life.starts")
    kind = raised.partition("(")[0].removeprefix("asyncio.")
    assert (f"importing acme_code raises {kind}" if where == "module" else f"raised {kind}") in failed["got"]
    assert provider["counts"]["not tried"] > 1
    assert {check["detail"] for check in provider["checks"] if check["status"] == "not tried"} == {failed["got"]}


def test_a_waiver_of_the_failed_check_is_none_of_those_that_were_not_tried(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_conformance=DOWN)
    (pytester.path / "waivers.yaml").write_text("- {id: life.starts, kind: unsupported, reason: it is off}\n")
    result = pytester.runpytest_subprocess("--llamastack-tiers", "live", "--llamastack-waivers", "waivers.yaml")
    assert result.ret == 1
    assert "failed" not in result.parseoutcomes()
    result.stdout.fnmatch_lines(["does NOT conform: * not tried, 1 waived, *"])


def test_a_fixture_that_fails_fails_one_check(pytester: pytest.Pytester) -> None:
    broken = DOWN + (
        "\n    @pytest.fixture(scope='class')\n    @classmethod\n    def llamastack_config(cls):\n"
        "        raise OSError('the server of the tests does not start')\n"
    )
    pytester.makepyfile(test_conformance=broken)
    result = pytester.runpytest_subprocess("--llamastack-tiers", "static")
    assert result.ret == 1
    outcomes = result.parseoutcomes()
    assert outcomes["errors" if "errors" in outcomes else "failed"] == 1
    result.stdout.fnmatch_lines(["not tried: * checks: OSError: the server of the tests does not start"])


def test_the_junit_report_names_check_tier_provider_and_status(pytester: pytest.Pytester) -> None:
    pytester.runpytest_subprocess(*FILELESS, "--llamastack-tiers", "static,live", "--junitxml", "junit.xml")
    cases = ElementTree.parse(pytester.path / "junit.xml").getroot().iter("testcase")
    found = {}
    for case in cases:
        properties = {each.get("name"): each.get("value") for each in case.iter("property")}
        assert properties.keys() == {"check", "tier", "provider", "status"}
        assert properties["provider"] == "safety=remote::sample"
        found[properties["check"]] = (properties["tier"], properties["status"], case)
    assert found["static.entry-point"][:2] == ("static", "passed")
    tier, status, case = found["run_shield.passes"]
    assert (tier, status) == ("live", "failed")
    [failure] = case.iter("failure")
    assert "wanted: a safe message passes" in str(failure.get("message"))
    assert {status for _, status, _ in found.values()} == {"passed", "failed", "not applicable"}


def test_the_json_report_has_times_and_parts_of_failures(pytester: pytest.Pytester) -> None:
    pytester.runpytest_subprocess(*FILELESS, "--llamastack-tiers", "static,live", "--llamastack-report", "r.json")
    report = json.loads((pytester.path / "r.json").read_text())
    assert report["format"] == 2
    [provider] = report["providers"]
    checks = {check["id"]: check for check in provider["checks"]}
    failed = checks["run_shield.passes"]
    assert failed["wanted"].startswith("a safe message passes")
    assert failed["got"].startswith("'forbidden' gets violation_level=")
    assert failed["mend"].startswith("return RunShieldResponse() without a violation")
    assert all(check["duration_s"] >= 0 for check in checks.values())
    assert any(check["duration_s"] > 0 for check in checks.values())
    assert provider["slowest"][0]["duration_s"] == max(check["duration_s"] for check in checks.values())
    assert sum(provider["counts"].values()) == len(checks)


def test_checks_run_in_the_order_of_their_tiers(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(*FILELESS, "--collect-only", "-q", "--llamastack-tiers", "static,live")
    names = [line.rpartition("::")[2] for line in result.stdout.lines if "::test_" in line]
    tiers = ["static" if name.startswith("test_static_") else "other" for name in names]
    assert tiers == sorted(tiers, reverse=True)
    assert names[0] == "test_static_entry_point"
    assert names[tiers.index("other")] == "test_life_starts"
