"""Uploads and downloads: back-pressure, cancellation, what breaks off, and that nothing of them stays."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import access_fake
import anyio
import httpx
import pytest
from blocks_fake import API, BLOCK
from installed_fakes import entry_points_in, install
from served_stack import served_stack

from llamastack import LlamaStackClient, Stack
from llamastack.api.files import File
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.errors import BackendError, InternalError, ServerBusyError
from llamastack.stack.discovery import Discovery
from llamastack_server import process_limits
from llamastack_server.bodies import Bodies

pytestmark = pytest.mark.anyio
CONFIG = {"providers": {"blocks": [{"provider_id": "b", "provider_type": "fake"}]}}


@pytest.fixture
def plugged(tmp_path: Path) -> Discovery:
    providers = {"fake": "blocks_fake:SPEC", "remote": "llamastack_provider_remote.passthrough:blocks"}
    entries = {"llamastack.plugins": {"blocks": "blocks_fake:PLUGIN"}, "llamastack.providers.blocks": providers}
    install(tmp_path / "site", "blocks", entries)
    return Discovery(entry_points_in(tmp_path / "site"))


def client_of(http: httpx.AsyncClient) -> Any:
    return LlamaStackClient(str(http.base_url), apis=[*BUILTIN_APIS, API])


def provider_of(stack: Stack) -> Any:
    return stack.instances["blocks"][0].provider


async def becomes_closed(provider: Any) -> None:
    with anyio.fail_after(5):
        while not provider.closed:
            await anyio.sleep(0.01)


async def test_a_download_waits_for_a_slow_client_and_ends_with_it(plugged: Discovery) -> None:
    async with served_stack(CONFIG, plugged) as (stack, http), client_of(http) as client:
        provider = provider_of(stack)
        blocks = await client.blocks.get_blocks(kind="endless")
        assert await anext(blocks)
        sent = -1
        with anyio.fail_after(10):
            while sent != provider.sent:  # until the system's buffers are full
                sent = provider.sent
                await anyio.sleep(0.2)
        assert provider.sent < 1000
        assert not provider.closed
        await blocks.aclose()
        await becomes_closed(provider)


async def test_a_file_that_is_not_read_to_its_end_is_closed_through_two_stacks(plugged: Discovery) -> None:
    async with served_stack(CONFIG, plugged) as (stack, http):
        remote = {"provider_id": "far", "provider_type": "remote", "config": {"url": str(http.base_url)}}
        async with (
            served_stack({"providers": {"blocks": [remote]}}, plugged) as (_, second),
            client_of(second) as client,
        ):
            async with await client.blocks.get_file(kind="endless") as file:
                assert await anext(aiter(file))
            await becomes_closed(provider_of(stack))


async def test_hooks_around_calls_see_a_stream_of_bytes(plugged: Discovery, tmp_path: Path) -> None:
    access_fake.forget()
    install(tmp_path / "site", "acme-calls", access_fake.CALLS)
    async with served_stack(CONFIG, plugged) as (stack, http), client_of(http) as client:
        blocks = await client.blocks.get_blocks(kind="endless")
        assert await anext(blocks)
        await blocks.aclose()
        await becomes_closed(provider_of(stack))
    assert [call.stream for call in access_fake.AROUND.calls] == [True]
    assert [event.status for event in access_fake.LISTENING.events] == ["started", "cancelled"]
    access_fake.forget()


async def test_a_client_that_gives_up_waiting_cancels_the_provider(plugged: Discovery) -> None:
    async with served_stack(CONFIG, plugged) as (stack, http), client_of(http) as client:
        with anyio.move_on_after(0.5):
            await client.blocks.get_blocks(kind="late")
        await becomes_closed(provider_of(stack))


async def test_what_fails_before_the_first_block_has_its_status(plugged: Discovery) -> None:
    async with served_stack(CONFIG, plugged) as (_, http), client_of(http) as client:
        for kind, why in (("refused", "there are none"), ("broken at first", "broken")):
            with pytest.raises(BackendError, match=why):
                await client.blocks.get_blocks(kind=kind)
        with pytest.raises(InternalError, match="reply to blocks.get_blocks is not what the API says"):
            await client.blocks.get_blocks(kind="odd")


@pytest.mark.parametrize("size", [None, 10 * len(BLOCK)])
async def test_what_breaks_off_is_no_whole_download(size: int | None, plugged: Discovery) -> None:
    async with served_stack(CONFIG, plugged) as (stack, http), client_of(http) as client:
        file = await client.blocks.get_file(kind="broken", size=size)
        with pytest.raises(BackendError, match="the answer was cut short"):
            await file.read()
        with pytest.raises(BackendError, match="broken"):
            await (await stack.blocks.get_file(kind="broken")).read()


@pytest.mark.parametrize("size", [1, 10 * len(BLOCK)])
async def test_a_file_of_another_size_than_it_said_is_no_whole_download(size: int, plugged: Discovery) -> None:
    async with served_stack(CONFIG, plugged) as (_, http), client_of(http) as client:
        with pytest.raises((BackendError, InternalError)):
            await (await client.blocks.get_file(kind="three", size=size)).read()


async def test_files_texts_and_the_query_of_one_call(plugged: Discovery) -> None:
    async def twice() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    async with served_stack(CONFIG, plugged) as (_, http), client_of(http) as client:
        files = [File(b"x" * 200_000), File(twice()), File(b"")]
        done = await client.blocks.put_blocks(kind="k", files=files, note="n o", numbers=[1, 2])
        assert done == "[200000, 3, 0] n o [1, 2]"


async def test_all_uploads_together_have_a_limit(plugged: Discovery, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[Bodies] = []

    class Seen(Bodies):
        def __init__(self, *settings: Any) -> None:
            super().__init__(*settings)
            counts.append(self)

    async def stuck() -> AsyncIterator[bytes]:
        yield BLOCK * 4
        await anyio.sleep_forever()

    monkeypatch.setattr(process_limits, "Bodies", Seen)
    server = {"max_upload_bytes": 300_000, "max_spooled_bytes": 400_000}
    async with served_stack({**CONFIG, "server": server}, plugged) as (_, http), client_of(http) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.blocks.put_blocks(kind="k", files=[File(stuck())]))
            with anyio.fail_after(5):
                while all(count.held < len(BLOCK) * 4 for count in counts):  # else either upload may be refused
                    await anyio.sleep(0.01)
            with pytest.raises(ServerBusyError, match=r"400000 \(server.max_spooled_bytes\)"):
                await client.blocks.put_blocks(kind="k", files=[File(b"x" * 150_000)])
            group.cancel_scope.cancel()
        with anyio.fail_after(5):
            while True:  # until the server knows that the client has gone
                with suppress(ServerBusyError):
                    assert await client.blocks.put_blocks(kind="k", files=[File(b"x" * 150_000)]) == "[150000]  None"
                    break


async def test_a_body_of_bytes_that_may_be_left_out(plugged: Discovery) -> None:
    async with served_stack(CONFIG, plugged) as (_, http), client_of(http) as client:
        assert [await client.blocks.put_bytes(content=content) for content in (None, b"ab")] == ["None", "b'ab'"]
        assert (await http.put("/blocks", params={"content": "x"}, content=b"y")).status_code == 400


async def test_no_file_of_an_upload_stays(plugged: Discovery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was read, ended, or was broken off: files on disk have no name, so their number is looked at."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def held() -> list[str]:
        found = []
        for link in Path("/proc/self/fd").iterdir():
            try:
                found.append(str(link.readlink()))
            except OSError:
                continue
        return [name for name in found if name.startswith(str(tmp_path)) and "deleted" in name]

    async def nothing_held() -> None:
        with anyio.fail_after(5):
            while held():
                await anyio.sleep(0.01)

    async def stuck(began: anyio.Event) -> AsyncIterator[bytes]:
        yield BLOCK * 4
        began.set()
        await anyio.sleep_forever()

    async with served_stack(CONFIG, plugged) as (_, http), client_of(http) as client:
        assert await client.blocks.put_blocks(kind="unread", files=[File(BLOCK * 4)]) == "unread"
        await nothing_held()
        began = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.blocks.put_blocks(kind="k", files=[File(stuck(began))]))
            await began.wait()
            with anyio.fail_after(5):
                while not held():
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        await nothing_held()
