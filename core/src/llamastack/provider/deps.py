"""What a provider is given beside its config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from anyio.abc import TaskGroup
from pydantic import BaseModel

from llamastack.api.definition import ApiDefinition
from llamastack.provider.context import validated_provider_data
from llamastack.provider.key_value import KeyValue
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.private_files import private_folder
from llamastack.provider.store import Store

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a provider is with something long.

    task: what is being done, for people ("preparing SmolLM2-135M-Instruct").
    done: how much is done, in `unit`.
    total: how much there is to do, in `unit`; None when it is not known.
    unit: what is counted, for people.
    """

    task: str
    done: float
    total: float | None
    unit: str = "bytes"


_replaying: ContextVar[bool] = ContextVar("llamastack_replaying", default=False)


@contextmanager
def replaying() -> Iterator[None]:
    """Inside the block the stack tells a provider again what was registered before."""
    token = _replaying.set(True)
    try:
        yield
    finally:
        _replaying.reset(token)


def _ignore(_: Progress) -> None:
    """Progress that nobody watches."""


class Deps(Mapping[str, Any]):
    """The APIs that a provider's spec names as dependencies, by name: `deps["inference"]`.

    They are the stack's own, so a call goes to whatever provider serves the object. An optional dependency that the
    stack lacks is not in the mapping.

    The stack makes it. A test that calls a provider without a stack gives what the provider uses:
    `Deps(provider_id="acme")`.
    """

    def __init__(
        self,
        *,
        provider_id: str,
        api: str = "",
        definitions: Mapping[str, ApiDefinition] | None = None,
        apis: Mapping[str, object] | None = None,
        task_group: TaskGroup | None = None,
        state_dir: Path | None = None,
        store: Store | None = None,
        report_progress: Callable[[Progress], None] = _ignore,
        provider_data_validator: type[BaseModel] | None = None,
    ) -> None:
        self.provider_id = provider_id
        """The id that this instance has in the run config; put it into errors."""
        self.api = api
        """The API that the instance is to implement; for factories that serve several APIs."""
        self.definitions: Mapping[str, ApiDefinition] = definitions or {}
        """Every API that this stack knows, those of plugins too, by name."""
        self.report_progress = report_progress
        """Call it (from the event loop's thread) during long preparation; each call renews the start's time limit."""
        self._apis = dict(apis or {})
        self._task_group = task_group
        self._state_dir = state_dir
        self._store = store
        self._validator = provider_data_validator

    def __getitem__(self, api: str) -> Any:
        return self._apis[api]

    def __iter__(self) -> Iterator[str]:
        return iter(self._apis)

    def __len__(self) -> int:
        return len(self._apis)

    @property
    def task_group(self) -> TaskGroup:
        """Owns the background tasks of this instance; cancelled after `shutdown`.

        A task that fails takes the instance down, and the stack starts it again. No task sees the context of the
        request that starts it.
        """
        if self._task_group is None:
            raise RuntimeError("this provider was made outside a stack, without a task group")
        return self._task_group

    @property
    def state_dir(self) -> Path:
        """A folder that this instance may keep files in; made on first use, for its owner alone."""
        if self._state_dir is None:
            raise RuntimeError("this provider was made outside a stack, without a state folder")
        return private_folder(self._state_dir)

    def kv(self, name: str, value_type: type[_T]) -> KeyValue[_T]:
        """Values that survive a restart and that all workers share, kept in the stack's store.

        No other instance sees them. Outside a stack they are kept in memory.
        name: of these values; one instance may keep several kinds of them.
        value_type: what pydantic can read and write as JSON; not None.
        """
        if not name or "/" in name:
            raise ValueError(f"a name of values is not empty and has no '/': {name!r}")
        if self._store is None:
            self._store = MemoryStore()
        return KeyValue(self._store, f"kv/{self.api}/{name}/{self.provider_id}", value_type, self.provider_id)

    @property
    def replaying(self) -> bool:
        """Whether `register_*` is called for what was registered before, not for a user who waits.

        No request's data is there then, and the call has a minute: what takes longer goes on in `task_group`.
        """
        return _replaying.get()

    def request_data(self) -> BaseModel | None:
        """The client's provider data of this request, read by the spec's validator; None when there is none.

        Raises InvalidRequestError when it does not fit.
        """
        return None if self._validator is None else validated_provider_data(self._validator, self.provider_id)
