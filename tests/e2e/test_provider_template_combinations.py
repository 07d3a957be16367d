"""Every package that `llamastack provider new` offers, with each kind of key: linted, built, installed, tried.

Those of `test_provider_template.py` also run before a real backend, which takes longer.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from backends.scripted_http import ScriptedHttp, answer
from projects import ROOT

from llamastack.provider.context import use_provider_data
from llamastack.provider.deps import Deps
from llamastack.provider.errors import LlamaStackError
from llamastack_cli.group import cli

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("provider_template_combinations"),
]
TOOLS = Path(sys.executable).parent
QUESTIONS = yaml.safe_load((ROOT / "provider_template/src/llamastack_provider_template/copier.yml").read_text("utf-8"))
WITH_AUTH = QUESTIONS["with_auth"]["default"]
AUTHS = tuple(QUESTIONS["auth"]["choices"].values())
COMBINATIONS = [
    (variant, auth)
    for variant in QUESTIONS["variants"]["default"]
    for auth in (AUTHS if variant in WITH_AUTH else ("",))
]
MYPY = """
[mypy]
strict = true
plugins = pydantic.mypy
[mypy-xllamacpp.*,asyncpg.*]
ignore_missing_imports = true
"""
# Wheels and source distributions of several folders, in one process.
BUILD = """
import os, sys
from hatchling.build import build_sdist, build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
    build_sdist(sys.argv[1])
"""
# One call of the backend with the provider of each API, by the name of its module.
CALLS: Mapping[str, Callable[[Any], Any]] = {
    "inference": lambda provider: provider.served(),
    "safety": lambda provider: provider.health(),
    "memory": lambda provider: provider.list_banks(),
}
HEADERS = {
    "none": {},
    "bearer": {"authorization": "Bearer operators"},
    "header": {"x-api-key": "operators"},
    "per-request": {"authorization": "Bearer clients"},
}


def name_of(variant: str, auth: str) -> str:
    return f"{variant[:3]}-{variant.partition('-')[2]}{'-' + auth if auth else ''}"


def package_of(tree: Path) -> str:
    [package] = (tree / "src").iterdir()
    return package.name


def run(*command: str, cwd: Path, **options: Any) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], Path]:
    """The package of each combination, as the command writes it."""
    folder, out = tmp_path_factory.mktemp("combinations"), io.StringIO()
    made = {}
    with (
        chdir(folder),
        redirect_stdout(out),
        redirect_stderr(out),
        open(os.devnull) as nothing,
        patch.object(sys, "stdin", nothing),
    ):
        for variant, auth in COMBINATIONS:
            name, (api, _, transport) = name_of(variant, auth), variant.partition("-")
            options = ["--name", name, "--api", api, "--transport", transport, *(["--auth", auth] if auth else [])]
            assert cli.run(["provider", "new", *options, "--defaults", name]) == 0, out.getvalue()
            made[variant, auth] = folder / name
    return made


def test_each_is_linted(trees: Mapping[tuple[str, str], Path], tmp_path: Path) -> None:
    folder = next(iter(trees.values())).parent
    run(str(TOOLS / "ruff"), "format", "--check", ".", cwd=folder)
    run(str(TOOLS / "ruff"), "check", ".", cwd=folder)
    (tmp_path / "mypy.ini").write_text(MYPY)
    sources = [str(tree / "src" / package_of(tree)) for tree in trees.values()]
    options = ("--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path / "cache"))
    run(str(TOOLS / "mypy"), *options, *sources, cwd=folder)


def test_each_is_built_installed_and_sound(trees: Mapping[tuple[str, str], Path], tmp_path: Path) -> None:
    dist, site = tmp_path / "dist", tmp_path / "site"
    dist.mkdir()
    for tree in trees.values():
        (tree / ".llamastack").mkdir()
        (tree / ".llamastack" / "registry.sqlite").write_text("private")
        assert ".llamastack/" in (tree / ".gitignore").read_text("utf-8").splitlines()
    run(sys.executable, "-c", BUILD, str(dist), *map(str, trees.values()), cwd=tmp_path)
    sdists = sorted(dist.glob("*.tar.gz"))
    assert len(sdists) == len(trees)
    for sdist in sdists:
        with tarfile.open(sdist) as file:
            names = file.getnames()
        assert any(name.endswith("/pyproject.toml") for name in names)
        assert not [name for name in names if ".llamastack/" in name]
    wheels = sorted(map(str, dist.glob("*.whl")))
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site))
    run(*pip, *wheels, cwd=tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    options = ("-c", os.devnull, "--import-mode=importlib", "-p", "no:cacheprovider", "--llamastack-tiers", "static")
    tests = [str(tree / "tests") for tree in trees.values()]
    shown = run(sys.executable, "-m", "pytest", *options, *tests, cwd=tmp_path, env=environment)
    passed = re.search(r"= (\d+) passed", shown)
    assert passed is not None
    assert int(passed[1]) >= 10 * len(trees), shown  # the static checks of each
    printed = run(str(TOOLS / "llamastack"), "providers", "list", "--json", cwd=tmp_path, env=environment)
    known = {(each["api"], each["package"], each["status"]) for each in json.loads(printed)}
    for (variant, _), tree in trees.items():
        assert (variant.partition("-")[0], f"llamastack-provider-{tree.name}", "ok") in known


@pytest.mark.parametrize("auth", AUTHS)
def test_a_vector_provider_over_rest_is_short(auth: str, trees: Mapping[tuple[str, str], Path]) -> None:
    tree = trees["memory-rest", auth]
    lines = (tree / "src" / package_of(tree) / "memory.py").read_text("utf-8").splitlines()
    assert len(lines) <= 120


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("variant", "auth"), [(variant, auth) for variant, auth in COMBINATIONS if variant in WITH_AUTH]
)
async def test_the_key_is_sent_as_chosen(
    variant: str,
    auth: str,
    trees: Mapping[tuple[str, str], Path],
    scripted_backend: ScriptedHttp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api, tree = variant.partition("-")[0], trees[variant, auth]
    package = package_of(tree)
    monkeypatch.syspath_prepend(tree / "src")
    spec = next(each for name, each in vars(importlib.import_module(package)).items() if name.isupper())
    config = spec.load_config_class().model_validate(
        {"url": scripted_backend.url, **({} if auth == "none" else {"api_key": "operators"})}
    )
    with pytest.raises(ValueError, match="api_key"):
        spec.load_config_class().model_validate({"api_key": "x"} if auth == "none" else {"api_key": 1})
    validator = spec.provider_data_validator
    assert (validator is not None) == (auth == "per-request")
    data = None if validator is None else importlib.import_module(f"{package}.config")
    deps = Deps(
        provider_id="acme",
        apis={"inference": object()},
        provider_data_validator=None if data is None else getattr(data, validator.partition(":")[2]),
    )
    provider = await spec.load_factory()(config, deps)
    scripted_backend.lists = False
    scripted_backend.answers.append(answer(200, {}))
    with use_provider_data({f"{tree.name.replace('-', '_')}_api_key": "clients"}), contextlib.suppress(LlamaStackError):
        await CALLS[api](provider)
    await (provider.close() if api == "memory" else provider.shutdown())
    [seen] = scripted_backend.received
    sent = {name: value for name, value in seen.headers.items() if name in ("authorization", "x-api-key")}
    assert sent == HEADERS[auth]
