"""Opening, closing, and what the package says of itself."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import ProviderUnavailableError
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.compliance import check_provider
from llamastack_provider_qdrant import QDRANT

pytestmark = pytest.mark.anyio


async def test_a_folder_in_use_is_refused(start: Any, tmp_path: Path) -> None:
    first = await start(path=tmp_path / "q")
    with pytest.raises(ProviderUnavailableError, match="in use by another process or provider") as caught:
        await start(path=tmp_path / "q")
    assert caught.value.provider_id == "docs"
    await first.shutdown()
    await start(path=tmp_path / "q")


async def test_a_folder_of_the_imitation_of_qdrant_is_refused(start: Any, tmp_path: Path) -> None:
    client = QdrantClient(path=str(tmp_path / "q"))
    client.create_collection("c", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
    client.close()
    with pytest.raises(ProviderUnavailableError, match="written by an earlier version .* allowed: a new folder"):
        await start(path=tmp_path / "q")


async def test_a_folder_that_cannot_be_made_is_refused(start: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProviderUnavailableError, match="cannot be read or written"):
        await start(path=tmp_path / "file" / "q")


async def test_the_file_of_an_unregistered_bank_is_closed_at_once(start: Any, tmp_path: Path) -> None:
    bank = VectorMemoryBank(identifier="notes", embedding_model="all-MiniLM-L6-v2", chunk_size_in_tokens=64)
    memory = await start(path=tmp_path / "q")
    gc.disable()  # it would close the file some day
    try:
        await memory.register_memory_bank(bank)
        await memory.query_documents("notes", "what opens the files")
        assert [name for name in open_files() if str(tmp_path) in name and "/shard/" in name]
        await memory.unregister_memory_bank(bank)
        assert [name for name in open_files() if str(tmp_path) in name and "/shard/" in name] == []
    finally:
        gc.enable()


def open_files() -> list[str]:
    folder = next((path for path in (Path("/proc/self/fd"), Path("/dev/fd")) if path.is_dir()), None)
    if folder is None:
        pytest.skip("this system does not list open files")
    maps = Path("/proc/self/maps")  # the engine maps its files and closes them
    mapped = maps.read_text().splitlines() if maps.is_file() else []
    return [*(os.readlink(entry) for entry in folder.iterdir() if entry.is_symlink()), *mapped]


async def test_entry_point_and_compliance(start: Any) -> None:
    points = importlib.metadata.entry_points(group="llamastack.providers.memory", name="remote::qdrant")
    assert [point.load() for point in points] == [QDRANT]
    api = next(api for api in BUILTIN_APIS if api.name == "memory")
    assert check_provider(api, await start(location=":memory:"), QDRANT.capabilities) == []
    assert QDRANT.capabilities.keys() == api.capabilities.keys()


def test_the_spec_imports_no_sdk() -> None:
    code = (
        "import sys, llamastack_provider_qdrant as p; p.QDRANT.load_config_class();"
        "sys.exit(bool({'qdrant_client', 'qdrant_edge', 'numpy', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
