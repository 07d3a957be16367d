"""Checks of a store with several processes, killed writers, a full disk, locked files, and wide rights."""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from llamastack.provider.errors import StoreUnavailableError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.store_under_test import StoreSubject
from llamastack_conformance.suites.store_suite import StoreSuite, expect, in_time, now_later

_COUNTERS = 4
_TIMES = 60
_WRITERS = 2
_ROUNDS = 3
_WRITES_BEFORE_KILL = 25
_TOLD_BY_S = 20.0
_FULL = re.compile(r"full|space|quota|large|disk", re.IGNORECASE)


class ProcessChecks(StoreSuite):
    """Checks of a store that processes share."""

    @check("processes.no-lost-update", tier=Tier.stress, mend="compare and write in one transaction")
    async def test_processes_no_lost_update(self, subject: StoreSubject) -> None:
        """several processes that add 1 by compare-and-set lose none, and of those that add one key only one succeeds"""
        subject.require_shared()
        kind = subject.new_kind()
        with subject.folder() as folder:
            results = await subject.done_by_processes(_COUNTERS, "count", folder, kind=kind, times=_TIMES)
            async with subject.opened(folder) as store:
                record = await store.get(kind, "sum")
        expect("the sum", record and record.value, str(_COUNTERS * _TIMES))
        versions = [version for result in results for version in result["versions"]]
        expect("the versions used twice", len(versions) - len(set(versions)), 0)
        won = sorted(number for result in results for number in result["won"])
        expect("the keys that were added", won, list(range(_TIMES)))

    @check("processes.killed", tier=Tier.failure, mend="write a record in one transaction, before the method returns")
    async def test_processes_killed(self, subject: StoreSubject) -> None:
        """after SIGKILL in the middle of writes all records are whole, what was returned is kept, and versions go on"""
        subject.require_shared()
        kind, newest = subject.new_kind(), 0
        with subject.folder() as folder:
            for number in range(_ROUNDS):
                written = await self._killed(subject, folder, kind, number)
                async with subject.opened(folder, [kind]) as store:
                    for key, last in written.items():
                        record = await store.get(kind, key)
                        _require_whole(key, record.value if record else None, last[0])
                    versions = [version for _, version in written.values()]
                    expect("the lowest version after a kill is greater than before", min(versions) > newest, True)
                    changes = await store.changes_since(0, [kind])
                    after = await store.put(kind, "after", "1")
                    newest = now_later(after, max(*versions, changes.version), "put() after the kill").version
                    expect("delete()", await store.delete(kind, "after"), True)

    async def _killed(
        self, subject: StoreSubject, folder: Path, kind: str, number: int
    ) -> Mapping[str, tuple[int, int]]:
        """Key -> (number, version) of the last write that each of the killed writers has said."""
        written: dict[str, tuple[int, int]] = {}

        async def kill_one(writer: int) -> None:
            async with subject.process("write", folder, kind=kind, name=f"{number}-{writer}") as process:
                await process.wrote(_WRITES_BEFORE_KILL + 7 * writer)
                await process.kill()
                written.update({key: (value, version) for key, value, version in process.lines()})

        async with anyio.create_task_group() as tasks:
            for writer in range(_WRITERS):
                tasks.start_soon(kill_one, writer)
        return written


def _require_whole(key: str, value: str | None, said: int) -> None:
    """A value is one number again and again: the last that the writer has said, or the next that it was writing."""
    if value is None:
        raise CheckFailure(f"'{key}' is not there, although put() of it has returned")
    parts = value.split()
    if len(parts) not in (1000, 100_000) or len(set(parts)) != 1 or not value.endswith(" "):
        raise CheckFailure(f"'{key}' has {len(parts)} of 1,000 or 100,000 parts, of {len(set(parts))} writes")
    if int(parts[0]) not in (said, said + 3):
        raise CheckFailure(f"'{key}' has write {parts[0]}, although put() of write {said} has returned")


class FaultChecks(StoreSuite):
    """Checks of a store that keeps files."""

    @check(
        "faults.full-disk",
        tier=Tier.failure,
        mend="raise StoreUnavailableError with file and cause",
    )
    async def test_faults_full_disk(self, subject: StoreSubject) -> None:
        """when there is no room, a write is StoreUnavailableError that names file and cause; the old value stays"""
        if sys.platform == "win32":
            raise NotApplicable("Windows has no limit of a file's size")
        kind = subject.new_kind()
        with subject.folder() as folder:
            async with subject.process("fill", folder, kind=kind) as process:
                said = await process.result()
        if not said["files"]:
            raise NotApplicable("the store keeps no files in the folder of its stack")
        if "error" not in said:
            if said["read"] == "x" * 10:
                raise NotApplicable("the store had room for 4 MB more than its largest file")
            raise CheckFailure(f"put() returned, and get() gave {said['read']!r}")
        _require_told(said["error"], said["message"], folder)
        if not _FULL.search(said["message"]):
            raise CheckFailure(f"the error does not say that the disk is full: {said['message']}")
        expect("get() after the error", said["read"], "old")
        expect("get() after put() when there was room again", said["after"], "after")

    @check("faults.locked", tier=Tier.failure, mend="wait for a limited time, then raise StoreUnavailableError")
    async def test_faults_locked(self, subject: StoreSubject) -> None:
        """when another process keeps the store locked, a write fails in time with StoreUnavailableError"""
        kind = subject.new_kind()
        with subject.folder() as folder:
            async with subject.opened(folder, [kind], **subject.short_timeouts) as store:
                kept = await store.put(kind, "a", "1")
                async with self.lock(folder):
                    for what in ("put", "delete"):
                        error = await _error_of(store.put(kind, "a", "2") if what == "put" else store.delete(kind, "a"))
                        if error is None:
                            raise CheckFailure(f"{what}() returned, although another process has the lock")
                        _require_told(type(error).__name__, str(error), folder)
                expect("get() after the errors", await store.get(kind, "a"), kept)
                now_later(await store.put(kind, "a", "3"), kept.version, "put() without the lock")

    @check("open.locked", tier=Tier.failure, mend="let open wait for a limited time, then raise OSError")
    async def test_open_locked(self, subject: StoreSubject) -> None:
        """if its files are locked, open fails in time with OSError that names a file; without the locks it works"""
        if sys.platform == "win32":
            raise NotApplicable("locks of Windows are of another kind")
        kind = subject.new_kind()
        with subject.folder() as folder:
            async with subject.opened(folder) as store:
                kept = await store.put(kind, "a", "1")
            subject.files(folder)
            async with subject.process("lock", folder) as process:
                await process.wrote(1)
                store = subject.make(folder, **subject.short_timeouts)
                error = await _error_of(store.open())
                if error is None:
                    await store.close()
                    raise NotApplicable("the store opens although its files are locked")
            _require_open_error(error, folder)
            async with subject.opened(folder) as store:
                expect("get() without the locks", await store.get(kind, "a"), kept)

    @check("open.no-folder", tier=Tier.failure, mend="raise OSError that names the path")
    async def test_open_no_folder(self, subject: StoreSubject) -> None:
        """if its folder cannot be made, open raises OSError that names it"""
        with subject.folder() as folder:
            async with subject.opened(folder) as store:
                await store.put(subject.new_kind(), "a", "1")
            subject.files(folder)
        with subject.folder() as file:
            file.write_text("no folder")
            error = await _error_of(subject.make(file / "stack").open())
            if error is None:
                raise CheckFailure("open() returned")
            _require_open_error(error, file)

    @check("files.private", tier=Tier.failure, mend="use `private_folder` and `private_file` of llamastack.provider")
    async def test_files_private(self, subject: StoreSubject) -> None:
        """only their owner can read its files (0600) and folders (0700), whatever the umask and the rights before"""
        if sys.platform == "win32":
            raise NotApplicable("Windows has no such rights")
        with subject.folder() as folder:
            async with subject.process("rights", folder, kind=subject.new_kind()) as process:
                said = await process.result()
            subject.files(folder)
            wide = [
                f"{Path(path).relative_to(folder.parent)} ({when}) has {stat.filemode(mode)[1:]}"
                for when, paths in said.items()
                for path, mode in paths.items()
                if mode & 0o077
            ]
        if wide:
            raise CheckFailure("; ".join(wide))


async def _error_of(call: Any) -> Exception | None:
    """What a call raises. Raises CheckFailure if it takes too long."""
    try:
        await in_time(call, _TOLD_BY_S)
    except CheckFailure:
        raise
    except Exception as error:
        return error
    return None


def _require_told(error: str, message: str, folder: Path) -> None:
    if error != StoreUnavailableError.__name__:
        raise CheckFailure(f"{error}: {message}")
    _require_named(message, folder)


def _require_open_error(error: Exception, folder: Path) -> None:
    if not isinstance(error, OSError):
        raise CheckFailure(f"open() raised {type(error).__name__}: {error}")
    _require_named(str(error), folder)


def _require_named(message: str, folder: Path) -> None:
    """The message names a file of the store, or its folder, and says more."""
    if str(folder) not in message:
        raise CheckFailure(f"the error does not say where: {message}")
    if len(re.sub(rf"\S*{re.escape(str(folder))}\S*", "", message).split()) < 2:
        raise CheckFailure(f"the error does not say why: {message}")
