"""A third party's API with path parameters, DELETE, uploads, downloads, pages and named events: server, client,
passthrough, in process, OpenAPI.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result
from installed_fakes import FILES_EXAMPLE, entry_points_in, install_package
from llamastack_files_example.api import APIS, EventType, FileEvent, Folder, StoredFile
from served_stack import served_stack

from llamastack import LlamaStackClient, Stack
from llamastack.api.files import File
from llamastack.api.pagination import all_listed
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.errors import InvalidRequestError, NotFoundError, RequestTooLargeError
from llamastack.stack import discovery
from llamastack.stack.discovery import Discovery
from llamastack_cli.group import cli

pytestmark = pytest.mark.anyio
LOCAL = {"providers": {"files": [{"provider_id": "disk", "provider_type": "local"}]}}
WITHOUT_FILES = {"providers": {"telemetry": [{"provider_id": "log", "provider_type": "remote::sample"}]}}
DEFINITIONS = [*BUILTIN_APIS, *APIS]


@pytest.fixture
def plugged(tmp_path: Path) -> Discovery:
    install_package(tmp_path / "site", FILES_EXAMPLE)
    return Discovery(entry_points_in(tmp_path / "site"))


@asynccontextmanager
async def in_process(plugged: Discovery) -> AsyncIterator[Any]:
    async with Stack.from_config(LOCAL, discovery=plugged) as stack:
        yield stack


@asynccontextmanager
async def over_http(plugged: Discovery) -> AsyncIterator[Any]:
    async with (
        served_stack(LOCAL, plugged) as (_, http),
        LlamaStackClient(str(http.base_url), apis=DEFINITIONS) as client,
    ):
        yield client


@asynccontextmanager
async def through_a_stack(plugged: Discovery) -> AsyncIterator[Any]:
    async with served_stack(LOCAL, plugged) as (_, http):
        remote = {"provider_id": "far", "provider_type": "remote", "config": {"url": str(http.base_url)}}
        async with Stack.from_config({"providers": {"files": [remote]}}, discovery=plugged) as stack:
            yield stack


@asynccontextmanager
async def through_two_servers(plugged: Discovery) -> AsyncIterator[Any]:
    async with served_stack(LOCAL, plugged) as (_, http):
        remote = {"provider_id": "far", "provider_type": "remote", "config": {"url": str(http.base_url)}}
        async with (
            served_stack({"providers": {"files": [remote]}}, plugged) as (_, second),
            LlamaStackClient(str(second.base_url), apis=DEFINITIONS) as client,
        ):
            yield client


WAYS = pytest.mark.parametrize("access", [in_process, over_http, through_a_stack, through_two_servers])


async def blocks(count: int, size: int = 100_000) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size


@WAYS
async def test_a_file_goes_in_and_comes_out_by_every_way(access: Any, plugged: Discovery) -> None:
    async with access(plugged) as apis:
        whole = b"".join([block async for block in blocks(30)])
        given = File(blocks(30), filename='a "strange"/nam\u00e9.bin', media_type="audio/wav", size=len(whole))
        stored = await apis.files.upload_file(folder="inbox", file=given, labels={"by": "me", "n": "1"})
        assert stored.id == "file-1"
        assert (stored.media_type, stored.size, stored.labels) == ("audio/wav", 3_000_000, {"by": "me", "n": "1"})
        async with await apis.files.download_file(folder="inbox", file_id="file-1") as file:
            assert (file.filename, file.media_type, file.size) == (stored.name, "audio/wav", 3_000_000)
            assert await file.read() == whole
        replaced = await apis.files.replace_content("inbox", "file-1", b"\x00\xff", media_type="text/plain")
        assert (replaced.size, replaced.media_type) == (2, "text/plain")
        assert await apis.files.checksum(folder="inbox") == hashlib.sha256(b"\x00\xff").hexdigest().encode()
        assert [block async for block in await apis.files.archive(folder="inbox")] == [b"\x00\xff"]
        changed = await apis.files.update_file(folder="inbox", file_id="file-1", labels={"x": "y"})
        assert (await apis.files.get_file(folder="inbox", file_id="file-1")) == changed
        assert await apis.files.delete_file(folder="inbox", file_id="file-1") is None
        with pytest.raises(NotFoundError, match="no file 'file-1' in folder 'inbox'"):
            await apis.files.get_file(folder="inbox", file_id="file-1")
        with pytest.raises(NotFoundError, match="no file 'file-1'"):
            await apis.files.download_file(folder="inbox", file_id="file-1")
        events = [event async for event in await apis.files.list_events(folder="inbox")]
        assert [event.type for event in events] == [EventType.stored, EventType.stored, EventType.deleted]
        assert isinstance(events[0], FileEvent)


@WAYS
async def test_lists_have_pages_and_names_may_hold_everything(access: Any, plugged: Discovery) -> None:
    odd = "a b%2F?#&\u00e9.."
    async with access(plugged) as apis:
        for name in (odd, "...", "%2e"):
            await apis.folders.register_folder(Folder(identifier=name, region="us"))
            assert (await apis.folders.get_folder(name)).region == "us"
        for number in range(5):
            await apis.files.upload_file(folder=odd, file=File(b"x", filename=f"{number}"))
        page = await apis.files.list_files(folder=odd, limit=2, after="file-1")
        assert ([file.id for file in page.data], page.has_more, page.last_id) == (["file-2", "file-3"], True, "file-3")
        assert isinstance(page.data[0], StoredFile)
        listed = all_listed(apis.files.list_files, folder=odd, limit=2)
        assert [file.name async for file in listed] == ["0", "1", "2", "3", "4"]
        assert {folder.identifier for folder in (await apis.folders.list_folders(region="us")).data} == {
            odd,
            "...",
            "%2e",
        }
        first = await apis.folders.list_folders(limit=1)
        assert (len(first.data), first.has_more) == (1, True)
        assert len([folder async for folder in all_listed(apis.folders.list_folders, limit=1)]) == 4
        with pytest.raises(InvalidRequestError, match="after: 'gone' is not in the list any more"):
            await apis.folders.list_folders(after="gone")
        with pytest.raises(InvalidRequestError, match="limit: must be at least 1"):
            await apis.folders.list_folders(limit=0)
        await apis.folders.unregister_folder(odd)
        assert await apis.folders.get_folder(odd) is None


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_would_be_another_path_is_refused(name: str, plugged: Discovery) -> None:
    async with over_http(plugged) as client:
        with pytest.raises(InvalidRequestError, match=f"identifier: '{name}' cannot stand in a path"):
            await client.folders.get_folder(name)


async def test_what_is_on_the_wire(plugged: Discovery) -> None:
    async with served_stack(LOCAL, plugged) as (_, http):
        form = {"files": {"file": ("../../a\\b.txt", b"abc", "text/plain")}, "data": {"labels": '{"a": "b"}'}}
        reply = await http.post("/folders/inbox/files", **form)
        assert (reply.status_code, reply.json()["name"], reply.json()["labels"]) == (201, "b.txt", {"a": "b"})
        reply = await http.get("/folders/inbox/files/file-1/content")
        assert (reply.content, reply.headers["content-type"], reply.headers["content-length"]) == (
            b"abc",
            "text/plain",
            "3",
        )
        assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''b.txt"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "x-request-id" in reply.headers
        reply = await http.get("/folders/inbox/checksum")
        assert reply.headers["content-type"] == "text/plain"
        reply = await http.get("/folders/inbox/archive")
        assert (reply.content, reply.headers["content-type"]) == (b"abc", "application/x-tar")
        reply = await http.get("/folders/inbox/events")
        assert reply.text == 'event: stored\ndata: {"type":"stored","file_id":"file-1"}\n\n'
        reply = await http.head("/folders/inbox/files/file-1/content")
        assert (reply.status_code, reply.content) == (200, b"")
        reply = await http.delete("/folders/inbox/files/file-1")
        assert (reply.status_code, reply.content, "content-length" in reply.headers) == (204, b"", False)
        reply = await http.post("/folders/inbox/files/file-1", json={})
        assert (reply.status_code, reply.headers["allow"]) == (405, "GET, PATCH, DELETE")
        for path in ("/folders/", "/folders//files", "/folders/inbox/files/", "/folders/inbox/nothing"):
            assert (await http.get(path)).status_code == 404, path


@pytest.mark.parametrize(
    ("form", "status", "param"),
    [
        ({"json": {"file": "x"}}, 400, None),
        ({"data": {"file": "x"}, "files": {"other": ("x", b"")}}, 400, "file"),
        ({"files": {"labels": ("x", b"{}")}}, 400, "labels"),
        ({"files": {"file": ("x", b"")}, "data": {"labels": "{"}}, 400, "labels"),
        ({"files": {"file": ("x", b"")}, "data": {"labels": '{"a": 1}'}}, 400, "labels.a"),
        ({"files": {"file": ("x", b"")}, "data": {"more": "1"}}, 400, "more"),
        ({"files": {"file": ("x", b"")}, "data": {"folder": "1"}}, 400, "folder"),
        ({"files": [("file", ("x", b"")), ("file", ("y", b""))]}, 400, "file"),
        ({"data": {"labels": "{}"}, "files": {"x": ("x", b"")}}, 400, "file"),
        ({"files": [("file", ("x", b""))] * 101}, 400, "file"),
        ({"files": {"file": ("x", b"")}, "data": {"labels": "x" * (2**20 + 1)}}, 413, None),
        ({"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, None),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400, None),
        ({"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, None),
        (
            {
                "content": b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"x" * 10**6,
                "headers": {"content-type": "multipart/form-data; boundary=b"},
            },
            400,
            "file",
        ),
    ],
)
async def test_a_wrong_form_is_refused_with_the_name_of_its_field(
    form: Any, status: int, param: str | None, plugged: Discovery
) -> None:
    async with served_stack(LOCAL, plugged) as (stack, http):
        reply = await http.post("/folders/inbox/files", **form)
        assert reply.status_code == status, reply.text
        assert reply.json()["error"].get("param") == param, reply.text
        assert (await stack.files.list_files(folder="inbox")).data == []


async def test_uploads_have_limits_of_their_own(plugged: Discovery) -> None:
    server = {"max_upload_bytes": 200_000, "max_spooled_bytes": 300_000, "max_body_bytes": 1000}
    async with (
        served_stack({**LOCAL, "server": server}, plugged) as (_, http),
        LlamaStackClient(str(http.base_url), apis=DEFINITIONS) as client,
    ):
        stored = await client.files.upload_file(folder="inbox", file=File(b"x" * 100_000))
        assert stored.size == 100_000
        for file in (File(b"x" * 300_000), File(blocks(3)), File(blocks(3), size=300_000)):
            with pytest.raises(RequestTooLargeError, match=r"200000 bytes \(server.max_upload_bytes\)"):
                await client.files.upload_file(folder="inbox", file=file)
        with pytest.raises(RequestTooLargeError, match="max_body_bytes"):
            await client.files.replace_content(folder="inbox", file_id="file-1", content=b"x" * 2000)


async def test_the_openapi_document_describes_it(plugged: Discovery) -> None:
    async with served_stack(LOCAL, plugged) as (_, http):
        document = (await http.get("/openapi.json")).json()
    paths = document["paths"]
    upload = paths["/folders/{folder}/files"]["post"]
    form = upload["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    assert form["properties"]["file"]["format"] == "binary"
    assert "folder" not in form["properties"]
    assert "201" in upload["responses"]
    assert {
        "name": "folder",
        "in": "path",
        "required": True,
        "schema": {"title": "Folder", "type": "string"},
    } in upload["parameters"]
    deleted = paths["/folders/{folder}/files/{file_id}"]["delete"]["responses"]["204"]
    assert "content" not in deleted
    content = paths["/folders/{folder}/files/{file_id}/content"]
    assert [*content["get"]["responses"]["200"]["content"]] == ["*/*"]
    assert [*content["put"]["requestBody"]["content"]] == ["application/octet-stream"]
    assert [p["name"] for p in content["put"]["parameters"][1:] if p["in"] == "query"] == ["media_type"]
    events = paths["/folders/{folder}/events"]["get"]["responses"]["200"]["content"]
    assert [*events] == ["text/event-stream"]
    assert "event" in events["text/event-stream"]["schema"]["properties"]
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(ids) == len(set(ids))


async def test_the_command_line_reaches_every_method(
    plugged: Discovery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_default", plugged)
    source, target = tmp_path / "a.txt", tmp_path / "b.txt"
    source.write_bytes(b"hello")
    async with served_stack(LOCAL, plugged) as (_, http):

        async def run(*arguments: str, status: int = 0) -> str:
            options = ["--url", str(http.base_url)]
            done = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(cli, [*arguments, *options]))
            assert done.exit_code == status, done.output
            return done.output

        await run("folders", "register", "docs", "--region", "us")
        assert "docs" in await run("folders", "list", "--region", "us")
        assert "inbox" not in await run("folders", "list", "--region", "us")
        assert "note: there are more: --after disk/inbox" in await run("folders", "list", "--limit", "1")
        assert "region" in await run("folders", "get", "docs")
        uploaded = await run("files", "upload", "--folder", "docs", "--file", str(source), "--labels", '{"a": "b"}')
        assert json.loads(uploaded) == {
            "id": "file-1",
            "name": "a.txt",
            "media_type": "text/plain",
            "size": 5,
            "labels": {"a": "b"},
        }
        one = ("--folder", "docs", "--file-id", "file-1")
        assert await run("files", "download", *one) == "hello"
        assert await run("files", "download", *one, "--output", str(target)) == ""
        assert target.read_bytes() == b"hello"
        assert '"has_more": false' in await run("files", "list", "--folder", "docs", "--limit", "5")
        assert '"size": 5' in await run("files", "replace-content", *one, "--content", str(target))
        assert await run("files", "delete", *one) == ""
        events = await run("files", "list-events", "--folder", "docs")
        assert [json.loads(line)["type"] for line in events.splitlines()] == ["stored", "stored", "deleted"]
        assert "no file 'file-1' in folder 'docs'" in await run("files", "get", *one, status=1)
        assert "Missing option '--file-id'" in await run("files", "get", "--folder", "docs", status=2)
        assert "--labels: is not JSON" in await run("files", "update", *one, "--labels", "{", status=2)
        await run("folders", "unregister", "docs")
        assert "no folder 'docs' is served" in await run("folders", "get", "docs", status=1)


async def test_a_route_of_its_own_is_served_with_its_form_of_errors(plugged: Discovery) -> None:
    async with served_stack(LOCAL, plugged) as (stack, http):
        await stack.files.upload_file(folder="inbox", file=File(blocks(3), filename="a.bin", media_type="image/png"))
        reply = await http.get("/shared/inbox/file-1")
        assert (reply.status_code, len(reply.content)) == (200, 300_000)
        assert reply.headers["content-type"] == "image/png"
        assert "x-request-id" in reply.headers
        assert (await http.head("/shared/inbox/file-1")).content == b""
        for method, path, problem in (
            ("GET", "/shared/inbox/gone", ("Not Found", 404, "no file 'gone' in folder 'inbox'")),
            ("GET", "/shared/nowhere/gone", ("Not Found", 404, "no folder 'nowhere' is served")),
            ("DELETE", "/shared/inbox/file-1", ("Method Not Allowed", 405, "does not take DELETE; allowed: GET")),
            ("GET", "/shared/inbox", ("Not Found", 404, "there is nothing at")),
        ):
            reply = await http.request(method, path)
            body = reply.json()
            assert ([*body], reply.status_code) == (["title", "status", "detail"], problem[1]), reply.text
            assert (body["title"], body["status"], problem[2] in body["detail"]) == (*problem[:2], True), reply.text
        # Outside of it errors have the native form.
        assert (await http.get("/folders/inbox/files/gone")).json()["error"]["code"] == "not_found"
        document = (await http.get("/openapi.json")).json()
        shown = document["paths"]["/shared/{folder}/{file_id}"]["get"]
        problem_of = shown["responses"]["default"]["content"]["application/json"]["schema"]["$ref"]
        assert problem_of.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    async with served_stack(WITHOUT_FILES, plugged) as (_, http):
        assert "error" in (await http.get("/shared/inbox/file-1")).json()


async def test_a_command_of_its_own_is_listed_and_runs(
    plugged: Discovery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_default", plugged)
    page = tmp_path / "a.html"
    page.write_bytes(b"<b>hello</b>")
    async with served_stack(LOCAL, plugged) as (_, http):

        async def run(*arguments: str) -> Result:
            return await anyio.to_thread.run_sync(lambda: CliRunner().invoke(cli, [*arguments]))

        assert ["share", "Upload", "a", "file", "and", "print", "its", "address."] in [
            line.split() for line in (await run("--help")).output.splitlines()
        ]
        url = str(http.base_url).rstrip("/")
        done = await run("share", str(page), "--media-type", "text/html", "--url", url)
        assert (done.exit_code, done.output) == (0, f"{url}/shared/inbox/file-1\n")
        reply = await http.get(done.output.strip())
        assert (reply.content, reply.headers["content-type"]) == (b"<b>hello</b>", "text/html")
        refused = await run("share", str(page), "--folder", "nowhere", "--url", url)
        assert refused.exit_code == 1
        assert "error: no folder 'nowhere' is served" in refused.output
        assert "Traceback" not in refused.output
        assert (await run("share", str(tmp_path / "gone"), "--url", url)).exit_code == 2


def test_a_provider_of_it_is_tried_by_the_suite_of_the_package(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install_package(site, FILES_EXAMPLE)
    config = tmp_path / "run.yaml"
    config.write_text(
        "providers:\n  files:\n    - {provider_id: disk, provider_type: local}\n"
        "x-conformance:\n  objects: [{identifier: docs}]\n  unserved: a/b\n"
    )
    path = os.pathsep.join([str(site), str(FILES_EXAMPLE / "src")])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            "--llamastack-provider",
            "files=local",
            "--llamastack-config",
            str(config),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "LLAMASTACK_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stdout
    print(done.stdout)
