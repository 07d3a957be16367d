"""The store under test: makes and opens it, here and in other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from pydantic import BaseModel, Secret, ValidationError

from llamastack.provider.redaction import Redactor
from llamastack.provider.store import Store
from llamastack.stack.discovery import STORE_GROUP, Discovery, DiscoveryError, Installed, default_discovery
from llamastack_conformance.check_runner import CheckRunner
from llamastack_conformance.checks import Check, CheckFailure, NotApplicable, NotUsable
from llamastack_conformance.configured import Origin, SubjectError, not_valid, read_settings

_CLOSED_BY_S = 10.0
STORE = "store"
"""What reports name as the API of a store."""


class ConfiguredStore:
    """An installed store and its settings in a run config.

    name: its entry point. document: the run config; its `store.config` are the settings, if it names this store. Raises
    SubjectError if it names another one.
    """

    def __init__(self, name: str, document: Mapping[str, Any], *, discovery: Discovery | None = None) -> None:
        self.name = name
        self.discovery = discovery or default_discovery()
        self.settings = read_settings(document)
        section = document.get("store") or {}
        if section.get("type", name) != name:
            raise SubjectError(f"store.type of the run config is '{section.get('type')}'; wanted: '{name}'")
        self.config: dict[str, Any] = dict(section.get("config") or {})

    @cached_property
    def installed(self) -> Installed:
        """The installed store. Raises NotUsable if it is not installed."""
        try:
            return self.discovery.find(STORE_GROUP, self.name)
        except DiscoveryError as error:
            raise NotUsable(
                str(error), wanted="an installed store", mend="install its package, or correct the name"
            ) from None

    @cached_property
    def store_class(self) -> Any:
        """What the entry point names. Raises NotUsable if it cannot be loaded."""
        try:
            return self.installed.load()
        except DiscoveryError as error:
            raise NotUsable(
                str(error),
                wanted="an entry point that names the class of the store",
                mend="correct the entry point, or the module that it names",
            ) from None

    def check_config(self) -> None:
        """Raises SubjectError if the settings do not fit the store. If it cannot be loaded, the checks say why."""
        try:
            model: type[BaseModel] = self.store_class.config_class
        except (CheckFailure, AttributeError):
            return
        try:
            model.model_validate(self.config)
        except ValidationError as error:
            raise not_valid(error, model, ["store", "config"]) from None

    @property
    def origin(self) -> Origin:
        """Where the store comes from, for reports."""
        try:
            return Origin(STORE, self.name, self.installed.package, self.installed.version, {})
        except CheckFailure:
            return Origin(STORE, self.name, "?", "?", {})

    def redact(self, text: str) -> str:
        """`text` without the secrets of the config; if those are unknown, without all texts of the config."""
        try:
            config: Any = self.store_class.config_class.model_validate(self.config)
        except (CheckFailure, ValidationError, AttributeError):
            config = Secret(self.config)
        return Redactor(config)(text)


class StoreSubject(ConfiguredStore, CheckRunner):
    """A store under test, and the event loop of its checks."""

    def __init__(
        self,
        name: str,
        document: Mapping[str, Any],
        *,
        discovery: Discovery | None = None,
        on_run: Callable[[Check], None] = lambda _: None,
    ) -> None:
        ConfiguredStore.__init__(self, name, document, discovery=discovery)
        CheckRunner.__init__(self, on_run)

    def new_kind(self) -> str:
        """A kind of records that no other check has used: a store on a server is not empty."""
        return f"conformance-{uuid.uuid4().hex[:12]}"

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """The folder of a stack: new and empty."""
        with tempfile.TemporaryDirectory(prefix="llamastack-store-") as made:
            yield Path(made, "stack")

    def make(self, folder: Path, **changes: Any) -> Store:
        """The store as a stack with this folder makes it. changes: to its config."""
        cls = self.store_class
        store: Store = cls(cls.config_class.model_validate({**self.config, **changes}), folder)
        return store

    @asynccontextmanager
    async def opened(self, folder: Path, followed: Collection[str] = (), **changes: Any) -> AsyncIterator[Store]:
        """An open store, closed in the end."""
        store = self.make(folder, **changes)
        await store.open(followed)
        try:
            yield store
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSED_BY_S):
                await store.close()

    @asynccontextmanager
    async def empty(self, followed: Collection[str] = ()) -> AsyncIterator[Store]:
        """An open store in a folder of its own."""
        with self.folder() as folder:
            async with self.opened(folder, followed) as store:
                yield store

    def require_shared(self) -> None:
        """Raises NotApplicable for a store that says that processes do not share it."""
        if not getattr(self.store_class, "shared", True):
            raise NotApplicable("the class says `shared = False`: processes do not share it")

    def files(self, folder: Path) -> list[Path]:
        """What the store keeps in the folder of its stack. Raises NotApplicable if that is nothing."""
        found = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
        if not found:
            raise NotApplicable("the store keeps no files in the folder of its stack")
        return found

    @property
    def short_timeouts(self) -> dict[str, Any]:
        """Changes to the config that shorten how long the store waits for a lock."""
        if self.settings.short_timeouts is not None:
            return self.settings.short_timeouts
        model: type[BaseModel] = self.store_class.config_class
        return {name: 1 for name in model.model_fields if "timeout" in name}

    # ---- other processes -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def process(self, work: str, folder: Path, **arguments: Any) -> AsyncIterator[StoreProcess]:
        """A process that does `work` of `llamastack_conformance.store_process` with the store; killed in the end."""
        given = {"class": self.installed.value, "config": self.config, "folder": str(folder), **arguments}
        with tempfile.TemporaryDirectory(prefix="llamastack-store-") as made:
            result = Path(made, "result")
            command = [
                sys.executable,
                "-m",
                "llamastack_conformance.store_process",
                work,
                str(result),
                json.dumps(given),
            ]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            async with await anyio.open_process(
                command, stdin=subprocess.DEVNULL, stdout=None, stderr=subprocess.PIPE, env=environment
            ) as running:
                try:
                    yield StoreProcess(work, running, result)
                finally:
                    if running.returncode is None:
                        running.kill()

    async def done_by_processes(self, count: int, work: str, folder: Path, **arguments: Any) -> list[Any]:
        """What each of several processes gives as its result. They begin at the same time."""
        go = folder.with_name("go")
        async with AsyncExitStack() as opened:
            started = [
                await opened.enter_async_context(self.process(work, folder, go=str(go), **arguments))
                for _ in range(count)
            ]
            for each in started:
                await each.wrote(1)
            go.touch()
            return [await each.result() for each in started]


@dataclass(frozen=True)
class StoreProcess:
    """A process that works with the store, and the lines of its result so far."""

    work: str
    running: anyio.abc.Process
    file: Path

    def lines(self) -> list[Any]:
        """What it has written so far, whole lines only."""
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    async def wrote(self, count: int) -> None:
        """Wait until it has written so many lines. Raises CheckFailure if it ends before."""
        while len(self.lines()) < count:
            if self.running.returncode is not None:
                await self._fail()
            await anyio.sleep(0.01)

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.running.kill()
        await self.running.wait()

    async def result(self) -> Any:
        """The last line, once it has ended. Raises CheckFailure if it ends with an error."""
        if await self.running.wait() != 0 or not self.lines():
            await self._fail()
        return self.lines()[-1]

    async def _fail(self) -> None:
        text = ""
        if self.running.stderr is not None:
            async for piece in self.running.stderr:
                text += piece.decode(errors="replace")
        raise CheckFailure(
            f"the process that was to {self.work} ended with {self.running.returncode}:\n{text.rstrip()}"
        )
