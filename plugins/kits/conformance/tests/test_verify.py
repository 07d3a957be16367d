"""`llamastack providers verify`: what it says of installed packages, sound ones and broken ones."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from llamastack.stack.discovery import default_discovery
from llamastack_cli.group import cli
from llamastack_conformance.verify.findings import Finding
from llamastack_conformance.verify.package_checks import dependencies_of, package_findings

APIS = ("inference", "safety", "memory")
ENTRY_POINT = "[llamastack.providers.inference]\nx = acme_verified:SPEC\n"
METADATA = """Metadata-Version: 2.4
Name: acme-verified
Version: 0.1.0
License-Expression: MIT
Requires-Dist: llamastack>=0.1
"""
Make = Callable[..., None]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Install the package `acme-verified` as pip does: a module, its metadata, and RECORD."""

    def made(metadata: str = METADATA, entry_points: str = ENTRY_POINT, more: Mapping[str, str] | None = None) -> None:
        info = "acme_verified-0.1.0.dist-info"
        files = {
            "acme_verified.py": "SPEC = 1\n",
            f"{info}/METADATA": metadata,
            f"{info}/entry_points.txt": entry_points,
            **{f"{info}/{name}": text for name, text in (more or {}).items()},
        }
        record = []
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(text)}")
        (tmp_path / info / "RECORD").write_text("\n".join([*record, f"{info}/RECORD,,"]) + "\n")

    monkeypatch.syspath_prepend(tmp_path)
    default_discovery().refresh()
    yield made
    default_discovery().refresh()


def findings() -> dict[str, Finding]:
    return {each.check: each for each in package_findings("acme-verified", APIS)}


def test_a_sound_package(make: Make) -> None:
    make()
    assert {name: each.status for name, each in findings().items()} == {
        "package.files": "ok",
        "package.license": "ok",
        "package.dependencies": "ok",
        "package.entry-points": "ok",
    }
    [llamastack] = dependencies_of("acme-verified")
    assert (llamastack.required, llamastack.version, llamastack.license) == ("llamastack>=0.1", "0.1.0", "MIT")


def test_files_that_are_not_those_of_the_wheel(make: Make, tmp_path: Path) -> None:
    make(more={"LICENSE": "MIT"})
    (tmp_path / "acme_verified.py").write_text("SPEC = 2\n")
    (tmp_path / "acme_verified-0.1.0.dist-info" / "LICENSE").unlink()
    found = findings()["package.files"]
    assert found.status == "fault"
    assert found.got == "acme_verified.py was changed; acme_verified-0.1.0.dist-info/LICENSE is missing"


def test_a_package_without_a_list_of_files(make: Make, tmp_path: Path) -> None:
    make()
    (tmp_path / "acme_verified-0.1.0.dist-info" / "RECORD").unlink()
    assert findings()["package.files"].got == "there is no RECORD"


def test_files_of_a_package_that_is_installed_in_place_are_not_compared(make: Make, tmp_path: Path) -> None:
    make(more={"direct_url.json": json.dumps({"url": "file:///x", "dir_info": {"editable": True}})})
    (tmp_path / "acme_verified.py").unlink()
    assert findings()["package.files"].status == "not checked"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("License-Expression: MIT", "MIT"),
        ("Classifier: License :: OSI Approved :: Apache Software License", "Apache Software License"),
        ("License: BSD\n        and a long text", "BSD"),
        ("Keywords: free", None),
    ],
)
def test_licenses(make: Make, line: str, named: str | None) -> None:
    make(METADATA.replace("License-Expression: MIT", line).replace("llamastack>=0.1", "acme-verified"))
    assert (findings()["package.license"].status == "ok") is (named is not None)
    [itself] = dependencies_of("acme-verified")
    assert itself.license == named


@pytest.mark.parametrize(
    ("requires", "got"),
    [
        ("no-such-package-at-all>=2", "no-such-package-at-all>=2 is required, and nothing is installed"),
        ("llamastack>=7", "llamastack>=7 is required, and 0.1.0 is installed"),
        ("llamastack=7", "Expected semicolon"),
        ("no-such-package-at-all; extra == 'x'", ""),
        ("no-such-package-at-all; python_version < '3'", ""),
    ],
)
def test_dependencies(make: Make, requires: str, got: str) -> None:
    make(METADATA.replace("llamastack>=0.1", requires))
    found = findings()["package.dependencies"]
    assert found.status == ("fault" if got else "ok")
    assert got in found.got


@pytest.mark.parametrize(
    ("group", "got"),
    [
        (
            "llamastack.provider.safety",
            "nothing reads 'llamastack.provider.safety'; is it 'llamastack.providers.safety'?",
        ),
        ("llamastack.plugin", "nothing reads 'llamastack.plugin'; is it 'llamastack.plugins'?"),
        ("llamastack_providers.memory", "is it 'llamastack.providers.memory'?"),
        ("llamastack.providers.cooking", "no installed plugin adds API 'cooking'"),
        ("llamastack.providers.memry", "no installed plugin adds API 'memry'; is it 'memory'?"),
        ("llamastack.stores", ""),
        ("console_scripts", ""),
    ],
)
def test_entry_points_in_groups_that_nothing_reads(make: Make, group: str, got: str) -> None:
    make(entry_points=f"[{group}]\nx = acme_verified:SPEC\n")
    found = findings()["package.entry-points"]
    assert found.status == ("fault" if got else "ok")
    assert got in found.got


def run(*arguments: str) -> int:
    return cli.run(["providers", "verify", *arguments])


def test_the_command_says_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("remote::tgi") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("inference=remote::tgi (llamastack-provider-tgi 0.1.0)\n")
    assert "ok          static.protocol" in shown
    assert "no fault" in shown


def test_the_command_says_what_is_wrong(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make(entry_points=ENTRY_POINT + "[llamastack.provider.safety]\ny = acme_verified:SPEC\n")
    assert run("x", "--json") == 1
    [shown] = json.loads(capsys.readouterr().out)
    assert (shown["api"], shown["provider_type"], shown["package"]) == ("inference", "x", "acme-verified")
    faults = {each["check"]: each for each in shown["findings"] if each["status"] == "fault"}
    assert "not a ProviderSpec" in faults["static.entry-point"]["got"]
    assert "llamastack.providers.safety" in faults["package.entry-points"]["got"]
    assert all(each["mend"] for each in faults.values())
    assert run("x") == 1
    assert "mend: correct the group in pyproject.toml" in capsys.readouterr().out


def test_a_type_that_is_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("remote::nobody", "--api", "safety") == 2
    assert "no provider of type 'remote::nobody' is installed for API 'safety'" in capsys.readouterr().err


# ---- providers that cannot be loaded ---------------------------------------------------------------------------------

SPEC = """
from llamastack.provider import RemoteProviderSpec

SPEC = RemoteProviderSpec(api="safety", provider_type="x", config_class="{module}:Config", factory="{module}:make",
                          description="x"{more})
"""
OUR_POINT = "[llamastack.providers.safety]\nx = acme_spec:SPEC\n"
EXITS = ["SystemExit(0)", "SystemExit('go away')", "GeneratorExit()", "__import__('asyncio').CancelledError('gone')"]
exits = pytest.mark.parametrize("raised", EXITS)


@pytest.fixture
def other_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Write a module beside the package; none of them stays imported."""

    def written(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)

    def forget() -> None:
        for name in ("acme_spec", "acme_code"):
            sys.modules.pop(name, None)

    forget()
    yield written
    forget()


def shown_of(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    assert run("x", "--api", "safety", "--json") == 1
    [shown] = json.loads(capsys.readouterr().out)
    return {each["check"]: each for each in shown["findings"]}


def rows_with(found: Mapping[str, Mapping[str, str]], text: str) -> list[str]:
    return [name for name, each in found.items() if text in each.get("got", "")]


@exits
def test_a_spec_whose_module_ends_the_process(
    make: Make, other_modules: Callable[[str, str], None], capsys: pytest.CaptureFixture[str], raised: str
) -> None:
    make(entry_points=OUR_POINT)
    other_modules("acme_spec", f"raise {raised}\n")
    found = shown_of(capsys)
    assert rows_with(found, "importing acme_spec raises ") == ["static.entry-point"]
    assert found["static.entry-point"]["status"] == "fault"
    assert found["static.import"]["got"] == "see static.entry-point"


@exits
def test_code_whose_module_ends_the_process(
    make: Make, other_modules: Callable[[str, str], None], capsys: pytest.CaptureFixture[str], raised: str
) -> None:
    make(entry_points=OUR_POINT)
    other_modules("acme_spec", SPEC.format(module="acme_code", more=""))
    other_modules("acme_code", f"raise {raised}\n")
    found = shown_of(capsys)
    faulty = rows_with(found, "importing acme_code raises ")
    assert faulty == ["static.factory"]
    assert found["static.factory"]["status"] == "fault"
    assert rows_with(found, "see static.factory") == [
        "static.protocol",
        "static.config-described",
        "static.config-strict",
        "static.secrets",
    ]
    assert found["static.protocol"] | {"wanted": ""} == {
        "check": "static.protocol",
        "status": "not checked",
        "wanted": "",
        "got": "see static.factory",
    }


def test_types_of_a_factory_that_end_the_process(
    make: Make, other_modules: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    make(entry_points=OUR_POINT)
    other_modules("acme_spec", SPEC.format(module="acme_code", more=""))
    code = "class Config: ...\nasync def make(config, deps): ...\nmake.__annotations__['return'] = \"exit('away')\"\n"
    other_modules("acme_code", code)
    assert "SystemExit: away" in shown_of(capsys)["static.factory"]["got"]


@pytest.mark.parametrize(
    ("name", "more", "cause"),
    [
        ("SPEC", ', api_version=">=5,<6"', "needs API version >=5,<6"),
        ("SPEC", ', api_version="new"', "api_version: 'new' is not like"),
        ("SPCE", "", "has no attribute 'SPCE'"),
    ],
)
def test_one_cause_is_said_once(
    make: Make,
    other_modules: Callable[[str, str], None],
    capsys: pytest.CaptureFixture[str],
    name: str,
    more: str,
    cause: str,
) -> None:
    make(entry_points=OUR_POINT.replace("SPEC", name))
    other_modules("acme_spec", SPEC.format(module="acme_code", more=more))
    found = shown_of(capsys)
    assert rows_with(found, cause) == ["static.entry-point"]
    untried = rows_with(found, "see static.entry-point")
    assert len(untried) > 5
    assert {found[each]["status"] for each in untried} == {"not checked"}
    assert all("mend" not in found[each] for each in untried)


def test_a_provider_whose_api_is_not_installed(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make(entry_points="[llamastack.providers.speech]\nx = acme_verified:SPEC\n")
    found = findings()["package.entry-points"]
    assert (found.status, found.got) == ("fault", "no installed plugin adds API 'speech'")
    assert found.mend == "install the package that adds API 'speech'"
    assert run("x", "--api", "speech") == 1
    shown = capsys.readouterr().out
    assert "nothing reads" not in shown
    assert "correct the group" not in shown
