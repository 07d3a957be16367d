"""Several instances of an API without resources: the ids that they made say which instance a call is for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from access_fake import ACCESS as ACCESS_PLUGINS
from access_fake import AROUND, DENYING, KEYS, KEYS_PLUGIN, LISTENING, forget
from access_fake import CALLS as CALL_PLUGINS
from installed_fakes import FILES_EXAMPLE, entry_points_in, install, install_package
from llamastack_files_example.uploads_api import UPLOADS
from served_stack import served_stack

from llamastack import LlamaStackClient, Stack
from llamastack.api.agents import AgentConfig
from llamastack.api.common import UserMessage
from llamastack.api.created_ids import mark_of
from llamastack.api.pagination import all_listed
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.context import use_context
from llamastack.provider.errors import (
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
)
from llamastack.provider.provider_call import Proceed, ProviderCall
from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio
DEFINITIONS = [*BUILTIN_APIS, UPLOADS]
A, B = mark_of("uploads", "a"), mark_of("uploads", "b")


def uploads(*names: str, **more: Any) -> dict[str, Any]:
    """A run config with instances of these names."""
    return {"providers": {"uploads": [{"provider_id": name, "provider_type": "local", **more} for name in names]}}


@pytest.fixture
def plugged(tmp_path: Path) -> Discovery:
    install_package(tmp_path / "site", FILES_EXAMPLE)
    return Discovery(entry_points_in(tmp_path / "site"))


@asynccontextmanager
async def in_process(plugged: Discovery) -> AsyncIterator[Any]:
    async with Stack.from_config(uploads("a", "b"), discovery=plugged) as stack:
        yield stack


@asynccontextmanager
async def over_http(plugged: Discovery) -> AsyncIterator[Any]:
    async with (
        served_stack(uploads("a", "b"), plugged) as (_, http),
        LlamaStackClient(str(http.base_url), apis=DEFINITIONS) as client,
    ):
        yield client


WAYS = pytest.mark.parametrize("access", [in_process, over_http])


@WAYS
async def test_an_id_says_which_instance_made_it(access: Any, plugged: Discovery) -> None:
    async with access(plugged) as apis:
        first = await apis.uploads.create_upload(name="first")
        second = await apis.uploads.create_upload(name="second", provider_id="b")
        assert (first.id, second.id) == (f"upload-1{A}", f"upload-1{B}")
        # In a path, with a body of bytes; in a query, with events; in a list of a JSON body; in a path alone.
        assert (await apis.uploads.add_part(upload_id=second.id, part=b"abc")).size == 3
        assert (await apis.uploads.get_upload(upload_id=first.id)).size == 0
        assert (await apis.uploads.get_upload(upload_id=second.id)).size == 3
        events = [event async for event in await apis.uploads.list_upload_events(upload_id=second.id)]
        assert [(event.type, event.upload_id) for event in events] == [("begun", second.id), ("part", second.id)]
        joined = await apis.uploads.join_uploads(upload_ids=[second.id, second.id])
        assert (joined.id, joined.size, joined.joined_from) == (f"upload-2{B}", 6, [second.id, second.id])
        await apis.uploads.delete_upload(upload_id=second.id)
        with pytest.raises(NotFoundError, match=f"there is no upload 'upload-1{B}'"):
            await apis.uploads.get_upload(upload_id=second.id)
        assert (await apis.uploads.get_upload(upload_id=first.id)).name == "first"


@WAYS
async def test_a_call_that_no_single_instance_can_serve_is_refused(access: Any, plugged: Discovery) -> None:
    gone = f"upload-1{mark_of('uploads', 'gone')}"
    async with access(plugged) as apis:
        first, second = [(await apis.uploads.create_upload(name=name, provider_id=name)).id for name in "ab"]
        for call, kind, param, message in (
            (
                apis.uploads.join_uploads(upload_ids=[first, second]),
                InvalidRequestError,
                "upload_ids",
                f"upload_ids '{first}' belongs to provider 'a', but upload_ids '{second}' belongs to provider 'b'; "
                "a call goes to one provider",
            ),
            (
                apis.uploads.get_upload(upload_id="upload-1"),
                NotFoundError,
                "upload_id",
                "upload_id 'upload-1' does not say which provider it belongs to; give ids back as they were returned. "
                "Providers of API 'uploads': a, b",
            ),
            (
                apis.uploads.get_upload(upload_id=gone),
                NotFoundError,
                "upload_id",
                f"upload_id '{gone}' belongs to a provider that this stack does not have. "
                "Providers of API 'uploads': a, b",
            ),
            (
                apis.uploads.create_upload(name="x", provider_id="gone"),
                InvalidRequestError,
                "provider_id",
                "'gone' is no provider of API 'uploads'; allowed: a, b",
            ),
            (
                apis.uploads.join_uploads(upload_ids=[]),
                InvalidRequestError,
                "provider_id",
                "join_uploads must name a provider of API 'uploads': a, b",
            ),
            (
                apis.uploads.list_uploads(after="upload-1"),
                InvalidRequestError,
                "after",
                "after: 'upload-1' is no `last_id` of this list; begin with the first page",
            ),
        ):
            with pytest.raises(LlamaStackError) as refused:
                await call
            assert (type(refused.value), refused.value.param, refused.value.message) == (kind, param, message)


@WAYS
async def test_a_list_has_the_entries_of_all_instances(access: Any, plugged: Discovery) -> None:
    async with access(plugged) as apis:
        assert (await apis.uploads.list_uploads()).data == []
        made = {
            name: [(await apis.uploads.create_upload(name=name, provider_id=name)).id for _ in range(count)]
            for name, count in (("b", 4), ("a", 3))
        }
        everything = [*made["a"], *made["b"]]
        assert await apis.uploads.list_names() == [*"aaabbbb"]
        assert await pages_of(apis, None) == [everything]
        assert await pages_of(apis, 7) == [everything]
        assert await pages_of(apis, 2) == [everything[:2], everything[2:4], everything[4:6], everything[6:]]
        assert await pages_of(apis, 3) == [everything[:3], everything[3:6], everything[6:]]
        assert await pages_of(apis, 5) == [everything[:5], everything[5:]]
        assert [each.id async for each in all_listed(apis.uploads.list_uploads, limit=1)] == everything
        assert [each.id for each in (await apis.uploads.list_uploads(after=made["a"][1])).data] == everything[2:]
        of_one = await apis.uploads.list_uploads(provider_id="b", limit=3)
        assert ([each.id for each in of_one.data], of_one.has_more) == (made["b"][:3], True)
        rest = await apis.uploads.list_uploads(provider_id="b", after=of_one.last_id)
        assert ([each.id for each in rest.data], rest.has_more) == (made["b"][3:], False)
        for each in made["b"]:
            await apis.uploads.delete_upload(upload_id=each)
        assert await pages_of(apis, 3) == [made["a"]]


async def pages_of(apis: Any, limit: int | None) -> Sequence[Sequence[str]]:
    """The ids on each page of the list."""
    pages, after = [], None
    while True:
        page = await apis.uploads.list_uploads(limit=limit, after=after)
        pages.append([each.id for each in page.data])
        if not page.has_more:
            return pages
        after = page.last_id


async def test_ids_that_the_instances_made_are_valid_when_there_are_more_or_fewer(plugged: Discovery) -> None:
    async with Stack.from_config(uploads("a"), discovery=plugged) as stack:
        made = await stack.api("uploads").create_upload(name="x")
        assert made.id == f"upload-1{A}"
        # One instance gets ids without a mark as they are, such as those that its backend made for others.
        assert (await stack.api("uploads").get_upload(upload_id="upload-1")).id == made.id
        foreign = f"upload-1{B}"
        with pytest.raises(NotFoundError) as refused:
            await stack.api("uploads").get_upload(upload_id=foreign)
        assert refused.value.message == (
            f"there is no upload '{foreign}'. upload_id '{foreign}' belongs to a provider that this stack does not have"
        )


async def test_ids_pass_through_stacks_whose_provider_is_another_stack(plugged: Discovery) -> None:
    async with AsyncExitStack() as opened:
        _, http = await opened.enter_async_context(served_stack(uploads("a", "b"), plugged))
        far = {"provider_type": "remote", "config": {"url": str(http.base_url)}}
        to_b = {**far, "config": {**far["config"], "remote_provider_id": "b"}}
        config = {"providers": {"uploads": [{"provider_id": "b", **to_b}, {"provider_id": "far", **far}]}}
        _, second = await opened.enter_async_context(served_stack(config, plugged))
        client = await opened.enter_async_context(LlamaStackClient(str(second.base_url), apis=DEFINITIONS))
        calls = client.api("uploads")
        there = await calls.create_upload(name="there")
        assert there.id == f"upload-1{B}{B}"
        made = await calls.create_upload(name="made", provider_id="far")
        assert made.id == f"upload-1{A}{mark_of('uploads', 'far')}"
        assert (await calls.get_upload(upload_id=there.id)).name == "there"
        assert (await calls.add_part(upload_id=made.id, part=b"12")).size == 2
        assert [event.upload_id async for event in await calls.list_upload_events(upload_id=made.id)] == [made.id] * 2
        listed = [each.id async for each in all_listed(calls.list_uploads, limit=1)]
        assert listed == [there.id, made.id, f"upload-1{B}{mark_of('uploads', 'far')}"]
        with pytest.raises(InvalidRequestError, match="belongs to provider 'far', but upload_ids '.*' belongs to"):
            await calls.join_uploads(upload_ids=[made.id, there.id])
        beyond = f"upload-1{mark_of('uploads', 'gone')}{mark_of('uploads', 'far')}"
        with pytest.raises(NotFoundError, match="does not have. Providers of API 'uploads': a, b"):
            await calls.get_upload(upload_id=beyond)


async def test_an_instance_that_is_down_makes_nothing_and_its_ids_are_unavailable(plugged: Discovery) -> None:
    nobody = {"provider_id": "far", "provider_type": "remote", "config": {"url": "http://127.0.0.1:1"}}
    config = {"providers": {"uploads": [nobody, {"provider_id": "b", "provider_type": "local"}]}}
    async with Stack.from_config(config, discovery=plugged) as stack:
        calls = stack.api("uploads")
        assert (await calls.create_upload(name="x")).id == f"upload-1{B}"
        for call in (
            calls.get_upload(upload_id=f"upload-1{mark_of('uploads', 'far')}"),
            calls.create_upload(name="x", provider_id="far"),
            calls.list_uploads(),
        ):
            with pytest.raises(ProviderUnavailableError, match=r"provider 'far' \(remote\) is down: .*127.0.0.1:1"):
                await call
        assert [each.name for each in (await calls.list_uploads(provider_id="b")).data] == ["x"]


async def test_an_id_is_found_after_a_restart_and_by_another_worker(plugged: Discovery, tmp_path: Path) -> None:
    install(tmp_path / "site", "acme", {"llamastack.providers.uploads": {"durable": "ids_fake:DURABLE"}})
    instances = [{"provider_id": name, "provider_type": "durable"} for name in "abc"]

    def worker(*order: int) -> Stack:
        config = {"providers": {"uploads": [instances[place] for place in order]}}
        return Stack.from_config(config, discovery=plugged, folder=tmp_path / "state")

    async with worker(0, 1) as one, worker(0, 1) as other:
        made = [await one.api("uploads").create_upload(name=name, provider_id=name) for name in "ab"]
        assert [(await other.api("uploads").get_upload(upload_id=each.id)).name for each in made] == ["a", "b"]
    async with worker(2, 1, 0) as again:  # the order does not count, nor what is added
        assert [(await again.api("uploads").get_upload(upload_id=each.id)).name for each in made] == ["a", "b"]
    async with worker(2, 1) as fewer:
        with pytest.raises(NotFoundError, match="belongs to a provider that this stack does not have"):
            await fewer.api("uploads").get_upload(upload_id=made[0].id)


async def test_hooks_see_the_instance_and_may_choose_another_one(plugged: Discovery, tmp_path: Path) -> None:
    install(tmp_path / "site", "acme-calls", CALL_PLUGINS)
    forget()

    async def at_b(call: ProviderCall, proceed: Proceed) -> Any:
        return await proceed(call.replaced(provider_id="b"))

    try:
        async with Stack.from_config(uploads("a", "b"), discovery=plugged) as stack:
            calls = stack.api("uploads")
            first = await calls.create_upload(name="x", provider_id="b")
            await calls.get_upload(upload_id=first.id)
            await calls.list_names()
            # Hooks see ids as callers do.
            assert [(call.provider_id, call.request) for call in AROUND.calls] == [
                ("b", {"name": "x", "provider_id": "b"}),
                ("b", {"upload_id": first.id}),
                ("a", {}),
                ("b", {}),
            ]
            finished = [(event.method, event.provider_id) for event in LISTENING.events if event.status == "ok"]
            assert finished[:2] == [("create_upload", "b"), ("get_upload", "b")]
            AROUND.does = at_b
            assert (await calls.create_upload(name="y", provider_id="a")).id == f"upload-2{B}"
            AROUND.does = lambda call, proceed: proceed(call.replaced(provider_id="gone"))
            with pytest.raises(NotFoundError, match="API 'uploads' has no provider 'gone'; providers: a, b"):
                await calls.create_upload(name="z")
    finally:
        forget()


async def test_a_list_leaves_out_the_instances_that_a_caller_may_not_call(plugged: Discovery, tmp_path: Path) -> None:
    install(tmp_path / "site", "acme-access", ACCESS_PLUGINS)
    forget()
    try:
        async with Stack.from_config(uploads("a", "b"), discovery=plugged) as stack:
            calls = stack.api("uploads")
            with use_context(principal=KEYS["ann-key"]):
                for name in "ab":
                    await calls.create_upload(name=name, provider_id=name)
                assert [asked[2].provider_id for asked in KEYS_PLUGIN.asked] == ["a", "b"]
                assert await calls.list_names() == ["a", "b"]
                DENYING.denied = {"a"}
                assert await calls.list_names() == ["b"]
                assert [each.name for each in (await calls.list_uploads(limit=1)).data] == ["b"]
                for call in (calls.list_uploads(provider_id="a"), calls.get_upload(upload_id=f"upload-1{A}")):
                    with pytest.raises(PermissionDeniedError):
                        await call
                DENYING.denied = {"a", "b"}
                with pytest.raises(PermissionDeniedError):
                    await calls.list_names()
    finally:
        forget()


async def test_two_instances_of_the_sample_agents_serve_one_stack() -> None:
    sample = "remote::sample"
    agents = [{"provider_id": name, "provider_type": sample} for name in ("left", "right")]
    config = {"providers": {"agents": agents, "inference": [{"provider_id": "echo", "provider_type": sample}]}}
    about = AgentConfig(model="sample-echo", instructions="Be brief.", enable_session_persistence=True)
    async with (
        served_stack(config) as (stack, http),
        LlamaStackClient(str(http.base_url)) as client,
    ):
        made = [await client.agents.create_agent(about, provider_id=name) for name in ("left", "right")]
        assert [each.agent_id[-9:] for each in made] == [mark_of("agents", name) for name in ("left", "right")]
        left, right = [each.agent_id for each in made]
        session_id = (await client.agents.create_agent_session(agent_id=right, session_name="s")).session_id
        ids = {"agent_id": right, "session_id": session_id}
        turn = await stack.agents.create_agent_turn(**ids, messages=[UserMessage(content="Hi")], stream=False)
        # A session is named with its agent, so its id needs no mark.
        assert turn.session_id == session_id
        pieces = await client.agents.create_agent_turn(**ids, messages=[UserMessage(content="Ho")], stream=True)
        assert [piece.event.payload.event_type async for piece in pieces][-1] == "turn_complete"
        session = await client.agents.get_agent_session(**ids)
        assert [each.input_messages[0].content for each in session.turns] == ["Hi", "Ho"]
        with pytest.raises(NotFoundError, match=f"has no session '{session_id}'"):
            await client.agents.get_agent_session(agent_id=left, session_id=session_id)
        await client.agents.delete_agent(agent_id=left)
        assert (await client.agents.get_agent_session(**ids)).session_id == session_id


async def test_a_plugin_with_an_api_whose_ids_cannot_be_routed_is_left_out(plugged: Discovery, tmp_path: Path) -> None:
    install(tmp_path / "site", "acme", {"llamastack.plugins": {"numbered": "ids_fake:NUMBERED"}})
    async with Stack.from_config(uploads("a"), discovery=plugged) as stack:
        assert "tickets" not in stack.hooks.apis()
        [left_out] = stack.hooks.broken
    assert left_out.cause == (
        "'numbered' (acme 1.2.3, entry point ids_fake:NUMBERED) adds APIs that cannot be used: "
        "tickets.open_ticket: Ticket.ticket_id holds an id and has the type int; allowed: str, and lists of it"
    )
