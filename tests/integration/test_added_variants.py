"""`llamastack provider new` for an API that a package adds: the variant of `examples/llamastack-speech`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from installed_fakes import entry_points_in, install, install_package
from projects import EXAMPLES

from llamastack.stack import discovery
from llamastack.stack.discovery import Discovery
from llamastack_provider_template.new import provider

SPEECH, BEEPER = EXAMPLES
GROUP = "llamastack.provider_templates"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of installed packages; the command runs in `tmp_path`."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(discovery, "_default", Discovery(entry_points_in(folder)))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    return folder


def new(*arguments: str) -> Result:
    return CliRunner().invoke(provider, ["new", "--defaults", *arguments])


def test_its_package_is_that_of_the_example(site: Path, tmp_path: Path) -> None:
    """So the page, which shows the example, and the variant cannot differ."""
    install_package(site, SPEECH)
    done = new("--api", "speech", "--name", "beeper")
    assert done.output.startswith(
        "llamastack-provider-beeper: speech provider beeper, which begins with a beep for each word."
    )
    made, source = tmp_path / "llamastack-provider-beeper", "src/llamastack_provider_beeper"
    for name in ("config.py", "speech.py"):
        assert (made / source / name).read_text() == (BEEPER / source / name).read_text()
    for name in (f"{source}/__init__.py", "tests/test_conformance.py"):
        statements = [
            [ast.unparse(each) for each in ast.parse((folder / name).read_text()).body[1:]] for folder in (made, BEEPER)
        ]
        assert statements[0] == [each.replace("A beep for each word", "Speech by Beeper") for each in statements[1]]


def test_the_other_variants_stay(site: Path, tmp_path: Path) -> None:
    install_package(site, SPEECH)
    assert (
        "which begins with regular expressions"
        in new("--name", "a", "--api", "safety", "--transport", "in-process").output
    )
    assert "'inference', 'safety', 'memory', 'agents', 'telemetry', 'speech'" in new("--api", "x", "--name", "a").output


def test_without_its_package_the_api_is_unknown(site: Path) -> None:
    done = new("--api", "speech", "--name", "acme")
    assert done.exit_code == 2
    assert "--api: 'speech' is not in ['inference'" in done.output


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("speech-in-process", "gone", "cannot be loaded: ModuleNotFoundError"),
        ("speech-in-process", "variant_fake:NAME", "is not a package with a docstring"),
        (
            "speech-in-process",
            "variant_fake",
            "has no config.py.jinja, conformance.yaml.jinja, facts.jinja, provider.py.jinja",
        ),
        (
            "speech",
            "variant_fake",
            "the name must be one of <api>-openai, <api>-rest, <api>-sql, <api>-sdk, <api>-in-process",
        ),
    ],
)
def test_a_faulty_one_is_left_out_with_its_name_and_cause(site: Path, name: str, value: str, why: str) -> None:
    (site / "variant_fake").mkdir()
    (site / "variant_fake" / "__init__.py").write_text('"""A fake."""\n\nNAME = 1\n')
    install(site, "acme", {GROUP: {name: value}})
    done = new("--name", "a", "--api", "safety", "--transport", "in-process")
    assert done.exit_code == 0
    assert f"warning: template variant left out: '{name}' (acme 1.2.3, entry point {value})" in done.output
    assert why in done.output
