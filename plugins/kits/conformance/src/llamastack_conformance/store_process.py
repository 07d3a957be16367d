"""A process of its own that works with a store: `python -m llamastack_conformance.store_process WORK RESULT GIVEN`.

RESULT is a file that it appends lines of JSON to, GIVEN the arguments as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from llamastack.provider.import_path import load_dotted
from llamastack.provider.store import Store
from llamastack_conformance.watching import becomes

_BIG = "x" * 4_000_000
_MARGIN = 200_000
_LARGE_EVERY = 8
_OTHERS_READY_BY_S = 30.0


class Worker:
    """Does the work. given: the arguments."""

    def __init__(self, result: Path, given: dict[str, Any]) -> None:
        self._result, self._given = result, given
        self._folder, self._kind = Path(given["folder"]), str(given.get("kind", ""))

    def say(self, line: object) -> None:
        """Append a line to the result, at once."""
        with self._result.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def make(self) -> Store:
        cls = load_dotted(self._given["class"])
        store: Store = cls(cls.config_class.model_validate(self._given["config"]), self._folder)
        return store

    async def count(self) -> None:
        """Add 1 to `sum` again and again by compare-and-set, and race for keys that only one may add."""
        store = self.make()
        await store.open([self._kind])
        self.say("ready")
        await becomes(Path(self._given["go"]).exists, _OTHERS_READY_BY_S)
        versions, won = [], []
        for number in range(self._given["times"]):
            added = await store.swap(self._kind, f"once-{number}", str(os.getpid()), version=None)
            won += [] if added is None else [number]
            while True:
                known = await store.get(self._kind, "sum")
                value = str(int((known and known.value) or "0") + 1)
                kept = await store.swap(self._kind, "sum", value, version=known.version if known else None)
                if kept is not None:
                    versions.append(kept.version)
                    break
        await store.close()
        self.say({"versions": versions, "won": won})

    async def write(self) -> None:
        """Write until killed: say each write that the store has taken. A value is one number, again and again."""
        store, name = self.make(), self._given["name"]
        await store.open([self._kind])
        number = 0
        while True:
            number += 1
            key, times = f"{name}-{number % 3}", 100_000 if number % _LARGE_EVERY == 0 else 1000
            kept = await store.put(self._kind, key, f"{number} " * times)
            self.say([key, number, kept.version])

    async def fill(self) -> None:
        """Write a value for which there is no room, and say what comes of it."""
        import resource

        store = self.make()
        await store.open([self._kind])
        await store.put(self._kind, "a", "old")
        sizes = [path.stat().st_size for path in self._folder.rglob("*") if path.is_file()]
        if not sizes:
            self.say({"files": False})
            return
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes) + _MARGIN, limits[1]))
        said: dict[str, Any] = {"files": True}
        try:
            await store.put(self._kind, "a", _BIG)
        except Exception as error:
            said |= {"error": type(error).__name__, "message": str(error)}
        said["read"] = await self._read(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        try:
            await store.put(self._kind, "a", "after")
            said["after"] = await self._read(store)
        except Exception as error:
            said["after"] = f"{type(error).__name__}: {error}"
        await store.close()
        self.say(said)

    async def _read(self, store: Store) -> str:
        """The value under `a`, cut short; or the error."""
        try:
            record = await store.get(self._kind, "a")
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "nothing" if record is None else str(record.value)[:10]

    async def rights(self) -> None:
        """Make files with a umask that takes no rights away, then open files that others may read; say the rights."""
        os.umask(0)
        said: dict[str, dict[str, int]] = {}
        for when in ("new", "opened again"):
            store = self.make()
            await store.open([self._kind])
            await store.put(self._kind, "a", "1")
            said[when] = {str(path): path.stat().st_mode & 0o777 for path in self._paths()}
            await store.close()
            for path in self._paths():
                path.chmod(0o777 if path.is_dir() else 0o666)
        self.say(said)

    def _paths(self) -> list[Path]:
        return [self._folder, *self._folder.rglob("*")] if self._folder.is_dir() else []

    async def lock(self) -> None:
        """Lock every file of the store, in both ways that there are, and hold the locks until killed."""
        import fcntl

        files = [path for path in self._folder.rglob("*") if path.is_file()]
        held = [os.open(path, os.O_RDWR) for path in files]
        for descriptor in held:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.say("locked")
        await anyio.sleep_forever()


def main(work: str, result: str, given: str) -> None:
    does: Callable[[], Awaitable[None]] = getattr(Worker(Path(result), json.loads(given)), work)
    anyio.run(does)


if __name__ == "__main__":
    main(*sys.argv[1:])
