"""What a stack writes is for its owner alone, whatever the umask."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_fake import Script

from llamastack.api import Model
from llamastack.provider import Deps
from llamastack.provider.private_files import make_private, make_tree_private, private_folder
from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio
CONFIG = "providers:\n  inference:\n  - {provider_id: a, provider_type: scripted}\n"


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(folder: Path) -> list[tuple[str, str]]:
    return [(str(path), oct(rights(path))) for path in (folder, *folder.rglob("*")) if rights(path) & 0o077]


async def test_the_files_of_a_stack(tmp_path: Path, discovery: Discovery, script: Callable[..., Script]) -> None:
    a = script(serves=[])
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG)
    async with Stack.from_config(file, discovery=discovery) as stack:
        await stack.models.register_model(Model(identifier="m"))
        assert a.deps is not None
        assert rights(a.deps.state_dir) == 0o700
        own = tmp_path / ".llamastack"
        names = {path.name for path in own.rglob("*")}
        assert {"registry.sqlite", "registry.sqlite-wal", "registry.sqlite-shm", "providers", "inference"} <= names
        assert open_to_others(own) == []
    [folder] = own.iterdir()
    folder.chmod(0o755)
    (folder / "registry.sqlite").chmod(0o644)
    (folder / "registry.sqlite-wal").touch()
    async with Stack.from_config(file, discovery=discovery):
        assert open_to_others(own) == []


async def test_a_registry_elsewhere(tmp_path: Path, discovery: Discovery, script: Callable[..., Script]) -> None:
    script()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    for path in (shared / "registry.sqlite", shared / "made" / "here" / "registry.sqlite"):
        providers = {"inference": [{"provider_id": "a", "provider_type": "scripted"}]}
        store = {"type": "sqlite", "config": {"path": str(path)}}
        async with Stack.from_config({"providers": providers, "store": store}, discovery=discovery):
            assert {rights(file) for file in path.parent.glob("registry.sqlite*")} == {0o600}
    assert rights(shared) == 0o755  # it is not ours
    assert open_to_others(shared / "made") == []


def test_a_whole_folder(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b")
    file = folder / "f"
    file.touch()
    file.chmod(0o754)
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o644)
    (folder / "link").symlink_to(outside)
    folder.chmod(0o777)
    make_tree_private(folder)
    assert (rights(folder), rights(file), rights(outside)) == (0o700, 0o600, 0o644)
    assert private_folder(folder) == folder
    make_private(folder / "missing")


def test_what_cannot_be_changed_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    make_private(tmp_path)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert f"{tmp_path} can be read by others" in caplog.text


def test_the_folder_of_a_provider_outside_a_stack() -> None:
    with pytest.raises(RuntimeError, match="without a state folder"):
        _ = Deps(provider_id="p").state_dir
