"""Every kind of reply goes through hooks around calls, call events and time limits: objects, events, bytes, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import access_fake
import anyio
import kinds_fake
import pytest
from access_fake import AROUND, LISTENING
from installed_fakes import entry_points_in, install
from kinds_fake import CALLS, CONFIG, KINDS, PROVIDER, STREAMED, pieces_of
from served_stack import served_stack

from llamastack.provider.context import use_context
from llamastack.provider.errors import PermissionDeniedError, ProviderTimeoutError
from llamastack.provider.provider_call import Proceed, ProviderCall
from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def plugged(tmp_path: Path) -> Iterator[Discovery]:
    install(tmp_path, "acme-kinds", KINDS)
    install(tmp_path, "acme-calls", access_fake.CALLS)
    access_fake.forget()
    PROVIDER.__init__()  # type: ignore[misc]
    yield Discovery(entry_points_in(tmp_path))
    access_fake.forget()


@pytest.mark.parametrize("kind", CALLS)
async def test_a_hook_that_only_hands_on_changes_nothing(plugged: Discovery, kind: str) -> None:
    method, arguments, pieces = CALLS[kind]
    PROVIDER.goes_on = True
    async with Stack.from_config(CONFIG, discovery=plugged) as stack:
        assert await pieces_of(await stack.api("kinds").methods[method](**arguments)) == pieces
    assert [(call.method, call.stream) for call in AROUND.calls] == [
        (method, kind in STREAMED and kind != "a file"),
    ]
    assert [event.status for event in LISTENING.events] == ["started", "ok"]
    assert (PROVIDER.closed == [method]) == (kind in STREAMED)


@pytest.mark.parametrize("kind", STREAMED)
async def test_a_hook_over_http_changes_nothing(plugged: Discovery, kind: str) -> None:
    method, arguments, pieces = CALLS[kind]
    PROVIDER.goes_on = True
    async with served_stack(CONFIG, plugged) as (_, client):
        reply = await client.get(f"/kinds/{method}", params=dict.fromkeys(arguments, "true"))
    assert reply.status_code == 200, reply.text
    whole = isinstance(pieces[0], bytes)
    assert reply.content == b"12" if whole else [*map(int, re.findall(r"\d", reply.text))] == [1, 2]


@pytest.mark.parametrize("kind", CALLS)
async def test_a_hook_changes_every_kind(plugged: Discovery, kind: str) -> None:
    method, arguments, pieces = CALLS[kind]
    PROVIDER.goes_on = True

    async def twice(call: ProviderCall, proceed: Proceed) -> Any:
        """Try again: the first reply is let go of unread."""
        await proceed(call)
        return await proceed(call)

    AROUND.does = twice
    async with Stack.from_config(CONFIG, discovery=plugged) as stack:
        assert await pieces_of(await stack.api("kinds").methods[method](**arguments)) == pieces


@pytest.mark.parametrize("kind", STREAMED)
async def test_what_a_refusing_hook_has_opened_is_closed(plugged: Discovery, kind: str) -> None:
    method, arguments, _ = CALLS[kind]

    async def refuses(call: ProviderCall, proceed: Proceed) -> Any:
        reply = await proceed(call)
        await anext(aiter(reply))
        raise PermissionDeniedError("not this one")

    AROUND.does = refuses
    async with Stack.from_config(CONFIG, discovery=plugged) as stack:
        with pytest.raises(PermissionDeniedError, match="not this one"):
            await stack.api("kinds").methods[method](**arguments)
        assert PROVIDER.closed == [method]


@pytest.mark.parametrize("hooked", [True, False], ids=["with hooks", "without hooks"])
@pytest.mark.parametrize("kind", STREAMED)
async def test_a_deadline_ends_every_stream(tmp_path: Path, plugged: Discovery, kind: str, hooked: bool) -> None:
    method, arguments, pieces = CALLS[kind]
    if not hooked:
        plugged = Discovery(entry_points_in(tmp_path), disabled=["acme-calls"])
    seen = []
    async with Stack.from_config(CONFIG, discovery=plugged) as stack:
        with anyio.fail_after(20), use_context(deadline=anyio.current_time() + 0.3):
            reply = await stack.api("kinds").methods[method](**arguments)
            with pytest.raises(ProviderTimeoutError, match="time limit"):
                async for piece in reply:
                    seen.append(piece)
    assert seen == pieces[:1]
    assert PROVIDER.closed == [method]
    assert [event.status for event in LISTENING.events] == (["started", "cancelled"] if hooked else [])
    assert kinds_fake.PROVIDER is PROVIDER
