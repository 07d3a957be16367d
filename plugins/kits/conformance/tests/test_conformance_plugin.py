"""The pytest plugin as users meet it: each test runs pytest in a process of its own, on the sample provider."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
providers:
  safety:
  - {provider_id: s, provider_type: "remote::sample"}
x-conformance:
  unsafe: this is forbidden
  objects: [{identifier: own, type: words, params: {words: [dreadful]}}]
  parallel_calls: 4
"""
SUITE = """
from pathlib import Path
from llamastack_conformance import SafetyConformance

class TestSample(SafetyConformance):
    provider_type = "remote::sample"
    config = Path(__file__).parent / "provider.yaml"
"""
# Not what the sample provider does: a safe message that it objects to.
WRONG = CONFIG.replace("unsafe: this is forbidden", "safe: forbidden")
FAILING = "run_shield.passes"


@pytest.fixture(autouse=True)
def config(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Importing these plugins takes longer than a whole run here, and no run here uses them.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:schemathesis -p no:hypothesispytest")
    file = pytester.path / "provider.yaml"
    file.write_text(CONFIG)
    return file


def run(pytester: pytest.Pytester, *arguments: str, fileless: bool = True) -> pytest.RunResult:
    named = (
        ("--llamastack-provider", "safety=remote::sample", "--llamastack-config", "provider.yaml") if fileless else ()
    )
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *named, *arguments)


def waive(pytester: pytest.Pytester, **fields: str) -> tuple[str, str]:
    given = {
        "id": FAILING,
        "kind": "bug",
        "reason": "a riddle",
        "link": "https://example.org/1",
        "expires": "2099-01-01",
    }
    lines = [f"{name}: {value}" for name, value in {**given, **fields}.items() if value]
    (pytester.path / "waivers.yaml").write_text("- " + "\n  ".join(lines) + "\n")
    return "--llamastack-waivers", "waivers.yaml"


def check_in(pytester: pytest.Pytester, check_id: str) -> dict[str, Any]:
    """A check in the report `r.json` of the only provider."""
    [provider] = json.loads((pytester.path / "r.json").read_text())["providers"]
    found: dict[str, Any] = next(check for check in provider["checks"] if check["id"] == check_id)
    return found


# ---- running ---------------------------------------------------------------------------------------------------------


def test_without_a_test_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_of_something_else="def test_it(): raise AssertionError('not asked for')")
    result = run(pytester, "-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "provider.yaml::TestRemoteSampleSafety::test_run_shield_passes PASSED*",
            "*conformance of safety=remote::sample (llamastack-provider-sample *",
            "run_shield    supported  * passed, * not applicable",
            "conforms: * passed, * not applicable",
            "![[]llamastack conformance](https://img.shields.io/badge/*brightgreen)",
        ]
    )
    assert "not asked for" not in result.stdout.str()


def test_as_a_class(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_conformance=SUITE)
    result = run(pytester, "-n", "2", "--dist", "loadgroup", "--llamastack-report", "r.json", fileless=False)
    assert result.ret == 0
    [provider] = json.loads((pytester.path / "r.json").read_text())["providers"]
    assert (provider["api"], provider["provider_type"]) == ("safety", "remote::sample")
    assert {check["status"] for check in provider["checks"]} == {"passed", "not applicable"}
    assert len({check["id"] for check in provider["checks"]}) == len(provider["checks"]) > 40


def test_it_is_inert_until_it_is_asked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "llamastack_conformance.plugin" in sys.modules
            loaded = {name for name in sys.modules if name.split(".")[0] in ("llamastack", "pydantic")}
            assert loaded <= {"llamastack", "llamastack.lazy_imports"}
        """
    )
    result = run(pytester, "-p", "no:backends", fileless=False)
    assert result.ret == 0
    assert "conformance" not in result.stdout.str().partition("plugins:")[2].partition("\n")[2]


def test_without_the_async_plugin(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-p", "no:anyio", "--llamastack-tiers", "live")
    assert result.ret == 0
    assert result.parseoutcomes().keys() <= {"passed", "deselected", "skipped"}


def test_tiers(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--llamastack-tiers", "static", "--llamastack-report", "r.json")
    [provider] = json.loads((pytester.path / "r.json").read_text())["providers"]
    assert result.ret == 0
    assert {check["tier"] for check in provider["checks"]} == {"static"}


def test_listing_the_checks(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--llamastack-list")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["tools.streamed * live * since 1.0 * inference * a streamed tool call*"])


# ---- failing ---------------------------------------------------------------------------------------------------------


def test_a_failure_says_what_and_how_to_mend_it(pytester: pytest.Pytester, config: Path) -> None:
    config.write_text(WRONG)
    result = run(pytester, "--llamastack-tiers", "live")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "run_shield.passes of safety=remote::sample",
            "wanted: a safe message passes*",
            "got:    'forbidden' gets violation_level=*",
            "mend:   return RunShieldResponse() without a violation*",
            "*does NOT conform: * 1 failed*",
        ]
    )
    assert "Traceback" not in result.stdout.str()


SECRET = "sk-not-for-anybodys-eyes"
FIXTURE = """
import pytest
from llamastack_conformance import InferenceConformance

class TestOpenAI(InferenceConformance):
    provider_type = "remote::openai"

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls):
        config = {"url": "http://127.0.0.1:1", "api_key": "SECRET", "timeout_s": TIMEOUT}
        provider = {"provider_id": "o", "provider_type": cls.provider_type, "config": config}
        return {"providers": {"inference": [provider]}, "x-conformance": {SETTING: 1}}
"""


@pytest.mark.parametrize(("timeout", "setting"), [("1", "time_limit_s"), ("'x'", "time_limit_s"), ("1", "nonsense")])
def test_no_key_of_the_config_is_shown(pytester: pytest.Pytester, timeout: str, setting: str) -> None:
    """Of a backend that is down, of a config that is wrong, and of settings that are wrong, which fail in a fixture."""
    text = FIXTURE.replace("SECRET", SECRET).replace("TIMEOUT", timeout).replace("SETTING", repr(setting))
    pytester.makepyfile(test_conformance=text)
    result = run(pytester, "-l", "-k", "life_two or static_config_strict", fileless=False)
    assert result.ret == 1
    assert SECRET not in result.stdout.str() + result.stderr.str()


def test_what_nobody_expects_comes_with_where_it_comes_from(pytester: pytest.Pytester) -> None:
    broken = (
        SUITE
        + """
    async def call(self, running, text=None):
        raise KeyError("the author's own mistake")
"""
    )
    pytester.makepyfile(test_conformance=broken)
    result = run(pytester, "-k", "life_starts", fileless=False)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*got:    KeyError: *", "*test_conformance.py*, in call", "*raise KeyError*"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--llamastack-provider", "safety"), "'safety' is not like inference=remote::tgi"),
        (("--llamastack-provider", "telepathy=x"), "there is no suite of API 'telepathy'; there are agents, inference"),
        (("--llamastack-tiers", "live,dead"), "allowed are static, live, stress, failure"),
        (("--llamastack-suite-version", "9.0"), "9.0 is not released yet; this suite is 1.0"),
        (("--llamastack-suite-version", "new"), "'new' is no version"),
        (("--llamastack-report", "r.txt"), "r.txt must end in .json or .md"),
        (("--llamastack-compare", "none.json"), "none.json: cannot be read"),
        (("--llamastack-config", "none.yaml"), "none.yaml: cannot be read"),
        (("--llamastack-waivers", "none.yaml"), "none.yaml: cannot be read"),
    ],
)
def test_bad_options(pytester: pytest.Pytester, arguments: tuple[str, ...], message: str) -> None:
    result = (
        run(pytester, *arguments, "--llamastack-tiers", "live")
        if "tiers" not in arguments[0]
        else run(pytester, *arguments)
    )
    assert result.ret != 0
    assert message in result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_a_provider_without_a_config(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--llamastack-provider", "safety=remote::sample")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*needs --llamastack-config FILE*"])


def test_a_provider_that_is_not_installed(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        "--llamastack-provider", "safety=remote::nobody", "--llamastack-config", "provider.yaml"
    )
    assert result.ret == 1
    outcomes = result.parseoutcomes()
    assert (outcomes["errors"], outcomes.get("passed"), outcomes.get("failed")) == (1, None, None)
    result.stdout.fnmatch_lines(
        [
            f"not tried: {outcomes['skipped']} checks: *has no provider of type 'remote::nobody'*",
            f"does NOT conform: 1 failed, {outcomes['skipped']} not tried",
        ]
    )


def test_no_check_at_all(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-k", "nothing_is_called_so")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["no check at all ran for safety=remote::sample"])


def test_a_check_that_is_skipped_fails(pytester: pytest.Pytester) -> None:
    marked = SUITE.replace("class Test", "import pytest\n\n@pytest.mark.skip(reason='later')\nclass Test")
    pytester.makepyfile(test_conformance=marked)
    result = run(pytester, "--llamastack-tiers", "static", fileless=False)
    assert result.ret == 1
    assert "a check must not be skipped" in result.stdout.str()
    assert result.parseoutcomes().get("skipped") is None


def test_a_check_that_is_overridden_by_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_conformance=SUITE + "\n    async def test_run_shield_passes(self): ...\n")
    result = run(pytester, fileless=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*TestSample.test_run_shield_passes overrides a check but is no check*"])


def test_a_suite_without_a_config(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_conformance=SUITE.replace("config =", "other ="))
    result = run(pytester, "--llamastack-tiers", "static", fileless=False)
    assert result.ret == 1
    assert "set `config`, or override the fixture `llamastack_config`" in result.stdout.str()


def test_settings_that_are_wrong(pytester: pytest.Pytester, config: Path) -> None:
    config.write_text(CONFIG.replace("unsafe:", "unsave:"))
    result = run(pytester, "--llamastack-tiers", "static")
    assert result.ret == 1
    assert "x-conformance.unsave: unknown field" in result.stdout.str()


# ---- waivers ---------------------------------------------------------------------------------------------------------


def test_a_waiver(pytester: pytest.Pytester, config: Path) -> None:
    config.write_text(WRONG)
    result = run(pytester, "--llamastack-tiers", "live", "--llamastack-report", "r.md", *waive(pytester))
    assert result.ret == 0
    assert result.parseoutcomes()["xfailed"] == 1
    report = (pytester.path / "r.md").read_text()
    assert "- `run_shield.passes` waived: bug: a riddle (https://example.org/1)" in report


def test_a_waiver_in_a_class(pytester: pytest.Pytester, config: Path) -> None:
    config.write_text(WRONG)
    waive(pytester)
    pytester.makepyfile(test_conformance=SUITE + "    waivers = Path(__file__).parent / 'waivers.yaml'\n")
    assert run(pytester, "--llamastack-tiers", "live", fileless=False).ret == 0


YESTERDAY = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("fields", "wrong", "message"),
    [
        ({}, False, "the waiver is not needed: the check passes"),
        ({"expires": YESTERDAY}, True, f"its waiver expired on {YESTERDAY}"),
        ({"id": "run_shield.dances"}, True, "there is no check 'run_shield.dances'"),
        (
            {"id": "tools.works"},
            False,
            "the waiver of 'tools.works' is not needed: the check does not apply to remote::sample",
        ),
        ({"id": "failure.secrets"}, False, "the waiver is not needed: the provider takes no secret"),
        ({"kind": "whim"}, True, "Input should be 'unsupported', 'model', 'future' or 'bug'"),
        ({"kind": "model", "expires": YESTERDAY}, True, f"its waiver expired on {YESTERDAY}"),
        ({"kind": "model", "id": "tools.works"}, False, "the waiver of 'tools.works' is not needed"),
        ({"link": ""}, True, "a waiver of kind 'bug' needs 'link' and 'expires'"),
        ({"reason": ""}, True, "[0].reason: required field is missing"),
        ({"why": "so"}, True, "[0].why: unknown field"),
        ({"provider": "remote::other"}, True, "does NOT conform"),
    ],
)
def test_waivers_are_strict(
    pytester: pytest.Pytester, config: Path, fields: dict[str, str], wrong: bool, message: str
) -> None:
    config.write_text(WRONG if wrong else CONFIG)
    result = run(pytester, "--llamastack-tiers", "live,failure", *waive(pytester, **fields))
    assert result.ret != 0
    assert message in result.stdout.str() + result.stderr.str()


def test_a_waiver_of_what_depends_on_the_model_warns(pytester: pytest.Pytester, config: Path) -> None:
    waiver = waive(pytester, kind="model", link="", expires="")
    arguments = ("--llamastack-tiers", "live", "--llamastack-report", "r.json", *waiver)
    of_model = {"kind": "model", "reason": "a riddle"}
    assert run(pytester, *arguments).ret == 0
    passed = check_in(pytester, FAILING)
    assert (passed["status"], passed["waiver"]) == ("passed", of_model)
    config.write_text(WRONG)
    result = run(pytester, *arguments)
    assert result.ret == 0
    warned = check_in(pytester, FAILING)
    assert (warned["status"], warned["waiver"]) == ("warned", of_model)
    assert warned["wanted"]
    assert warned["mend"]
    assert warned["got"].startswith("'forbidden' gets violation_level=")
    result.stdout.fnmatch_lines(["warned: run_shield.passes: model: a riddle"])


def test_waivers_are_as_strict_in_many_processes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_conformance=SUITE)
    many = ("-n", "2", "--dist", "loadgroup", "--llamastack-tiers", "live")
    result = run(pytester, *many, *waive(pytester, id="tools.works"), fileless=False)
    assert result.ret == 1
    assert result.stdout.str().count("the waiver of 'tools.works' is not needed: the check does not apply to") == 1


def test_a_waiver_of_a_tier_that_is_not_run(pytester: pytest.Pytester) -> None:
    assert run(pytester, "--llamastack-tiers", "static", *waive(pytester)).ret == 0


# ---- versions, reports -----------------------------------------------------------------------------------------------


def test_a_pinned_suite_only_warns_of_newer_checks(pytester: pytest.Pytester, config: Path) -> None:
    config.write_text(WRONG)
    pinned = ("--llamastack-tiers", "live", "--llamastack-suite-version", "0.9", "--llamastack-report", "r.json")
    assert run(pytester, *pinned).ret == 0
    [provider] = json.loads((pytester.path / "r.json").read_text())["providers"]
    assert [check["id"] for check in provider["checks"] if check["status"] == "warned"] == [FAILING]
    assert run(pytester, *pinned[:2], "--llamastack-suite-version", "1.0").ret == 1


def test_what_a_pin_warns_of_is_shown(pytester: pytest.Pytester, config: Path) -> None:
    config.write_text(WRONG)
    pytester.makepyfile(test_conformance=SUITE)
    result = run(pytester, "--llamastack-tiers", "live", "--llamastack-suite-version", "0.9", fileless=False)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["run_shield    supported  3 passed, 1 warned*"])


def test_regressions(pytester: pytest.Pytester, config: Path) -> None:
    assert run(pytester, "--llamastack-report", "old.json", "--llamastack-tiers", "live").ret == 0
    assert run(pytester, "--llamastack-compare", "old.json", "--llamastack-tiers", "live").ret == 0
    config.write_text(WRONG)
    result = run(pytester, "--llamastack-compare", "old.json", "--llamastack-tiers", "live", *waive(pytester))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["safety=remote::sample run_shield.passes: was passed, is waived"])


def test_a_report_that_cannot_be_written(pytester: pytest.Pytester) -> None:
    (pytester.path / "file").touch()
    result = run(pytester, "--llamastack-tiers", "static", "--llamastack-report", "file/r.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["file/r.json: cannot be written:*"])
