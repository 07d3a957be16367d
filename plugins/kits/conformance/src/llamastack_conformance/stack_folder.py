"""The folder of a stack that a check stops and starts again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

_MOST_FILES = 10_000


@dataclass
class StackFolder:
    """What one stack leaves to the next: the registry, the providers' own folders, and what is still registered.

    registered: names that the last stack has left registered. starts: how many stacks have used the folder.
    """

    path: Path
    registered: list[str] = field(default_factory=list)
    starts: int = 0
    registries: int = 1

    @property
    def store(self) -> dict[str, Any]:
        """The key `store` of a run config whose registry is in this folder."""
        return {"type": "sqlite", "config": {"path": str(self.path / f"registry-{self.registries}.sqlite")}}

    def use(self) -> None:
        """A stack starts in it."""
        self.starts += 1

    def leave(self, names: Iterable[str]) -> None:
        """A stack that stops leaves these names registered."""
        self.registered = [*names]

    def adopt(self) -> list[str]:
        """The names that the last stack has left registered, which the next one takes over."""
        names, self.registered = self.registered, []
        return names

    def lose_registry(self) -> None:
        """Let the next stack begin with an empty registry. The providers' own folders stay."""
        self.registries += 1
        self.registered.clear()


def files_of(place: Path) -> list[Path]:
    """The files at or below a place, the first 10,000."""
    if place.is_file():
        return [place]
    return list(islice((path for path in place.rglob("*") if path.is_file()), _MOST_FILES)) if place.is_dir() else []


def written_state(places: Mapping[str, Path]) -> dict[Path, tuple[int, int]]:
    """(time of the last change in ns, size in bytes) of every file at these places."""
    found: dict[Path, tuple[int, int]] = {}
    for place in places.values():
        for file in files_of(place):
            try:
                state = file.stat()
            except OSError:  # it has just been removed
                continue
            found[file] = state.st_mtime_ns, state.st_size
    return found


@contextmanager
def new_stack_folder() -> Iterator[StackFolder]:
    """An empty folder, removed in the end."""
    # A file that a provider still has open cannot be removed on Windows; the system removes it later.
    with tempfile.TemporaryDirectory(prefix="llamastack-conformance-", ignore_cleanup_errors=True) as made:
        yield StackFolder(Path(made))
