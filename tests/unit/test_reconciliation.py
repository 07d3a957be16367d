"""Two workers, two providers that come and go, and a store that fails are driven at random and compared with a model.

After all have settled, each worker serves what is registered and its provider takes, says why it does not serve the
rest, and both workers say the same.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from installed_fakes import scripted_discovery
from registration_model import DECLARED, NAMES, PROVIDERS, Backend, Registered
from scripted_fake import SCRIPTS

from llamastack.api import Model, UserMessage
from llamastack.provider.errors import (
    ConflictError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    StoreUnavailableError,
    UnsupportedModelError,
)
from llamastack.stack import Stack
from llamastack.stack.resources import releases
from llamastack.stack.resources.kept_registrations import StoreFollower
from llamastack.stack.supervisor import SupervisedProvider

names = st.sampled_from(NAMES)
providers = st.sampled_from(PROVIDERS)
workers = st.sampled_from((0, 1))
mostly_not = st.sampled_from([False, False, True])


class Workers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.discovery = scripted_discovery(self.folder / "site-packages")
        self.backends = {name: Backend(name) for name in PROVIDERS}
        self.earlier = dict(SCRIPTS)
        SCRIPTS.update(self.backends)
        self.portal_manager = start_blocking_portal()
        self.portal = self.portal_manager.__enter__()
        self.registered: dict[str, Registered] = {}
        self.backends["a"].serves, self.backends["b"].serves = ["x"], ["y"]
        self.stacks = [self.portal.call(self.started) for _ in (0, 1)]
        # A worker that registers during an unregistration gives up soon.
        self.longest_wait_s, releases._LONGEST_WAIT_S = releases._LONGEST_WAIT_S, 0.02
        self.followers = [self.follower(stack) for stack in self.stacks]

    def follower(self, stack: Stack) -> StoreFollower:
        return StoreFollower(stack.store, stack._tables.values())

    async def started(self) -> Stack:
        config = {
            "providers": {
                "inference": [
                    {"provider_id": n, "provider_type": "scripted", "config": {"script": n}} for n in PROVIDERS
                ]
            },
            "models": [{"identifier": DECLARED, "provider_id": "b"}],
            "store": {"type": "sqlite", "config": {"path": str(self.folder / "registry.sqlite")}},
        }
        stack = Stack.from_config(config, discovery=self.discovery)
        await stack.start()
        return stack

    def teardown(self) -> None:
        releases._LONGEST_WAIT_S = self.longest_wait_s
        try:
            self.compare_with_all_providers()
        finally:
            for stack in self.stacks:
                self.portal.call(stack.stop)
            self.portal_manager.__exit__(None, None, None)
            SCRIPTS.clear()
            SCRIPTS.update(self.earlier)
            shutil.rmtree(self.folder)

    # ---- what happens ------------------------------------------------------------------------------------------------

    @rule(worker=workers, name=names, provider_id=providers, number=st.integers(0, 1))
    def register(self, worker: int, name: str, provider_id: str, number: int) -> None:
        self.try_to_register(worker, name, Registered(provider_id, None, number))

    @rule(worker=workers, name=names, provider_id=providers, of=names)
    def register_an_alias(self, worker: int, name: str, provider_id: str, of: str) -> None:
        self.try_to_register(worker, name, Registered(provider_id, None if of == name else of, 0))

    def try_to_register(self, worker: int, name: str, wanted: Registered) -> None:
        before, backend = self.registered.get(name), self.backends[wanted.provider_id]
        error = self.outcome(self.stacks[worker].models.register_model, wanted.of(name))
        if error is None:
            assert before in (None, wanted), "something else was registered by this name"
            assert before == wanted or not backend.is_down or wanted.target is not None
            self.registered[name] = wanted
        elif isinstance(error, ConflictError):
            assert before not in (None, wanted)
        elif isinstance(error, UnsupportedModelError):
            assert name not in (backend.accepts or ())
        elif isinstance(error, InvalidRequestError):
            assert wanted.target is not None
        else:
            assert isinstance(error, ProviderUnavailableError), error
            assert backend.is_down

    @rule(worker=workers, name=names)
    def unregister(self, worker: int, name: str) -> None:
        before = self.registered.get(name)
        error = self.outcome(self.stacks[worker].models.unregister_model, name)
        if error is None:
            del self.registered[name]
        elif isinstance(error, NotFoundError):
            assert before is None
        else:
            assert isinstance(error, ProviderUnavailableError), error
            assert before is not None
            assert self.backends[before.provider_id].is_down

    @rule(worker=workers, name=names, provider_id=providers, store=st.sampled_from(["fails", "fails after writing"]))
    def the_store_fails(self, worker: int, name: str, provider_id: str, store: str) -> None:
        stack = self.stacks[worker]
        swap = stack.store.swap

        async def failing(*arguments: Any, **named: Any) -> Any:
            if store == "fails after writing":
                await swap(*arguments, **named)
            raise StoreUnavailableError("the store fails")

        stack.store.swap = failing  # type: ignore[method-assign]
        try:
            self.half_done(worker, name, Registered(provider_id, None, 2), self.outcome)
        finally:
            stack.store.swap = swap  # type: ignore[method-assign]

    @rule(worker=workers, name=names, provider_id=providers, turns=st.integers(0, 30), ends=st.booleans())
    def a_worker_ends_in_the_middle(self, worker: int, name: str, provider_id: str, turns: int, ends: bool) -> None:
        def cancelled(function: Callable[..., Awaitable[None]], *arguments: object) -> None:
            self.portal.call(self.cancel_after, turns, function, *arguments)

        self.half_done(worker, name, Registered(provider_id, None, 3), cancelled)
        if ends:
            self.portal.call(self.stacks[worker].stop)
            self.stacks[worker] = self.portal.call(self.started)
            self.followers[worker] = self.follower(self.stacks[worker])

    def half_done(self, worker: int, name: str, wanted: Registered, attempt: Callable[..., object]) -> None:
        """Register or unregister so that the outcome is open; the store says which one it is."""
        models, before = self.stacks[worker].models, self.registered.get(name)
        if before is None:
            attempt(models.register_model, wanted.of(name))
        else:
            attempt(models.unregister_model, name)
        self.take_from_store(name, before or wanted)

    def take_from_store(self, name: str, *possible: Registered | None) -> None:
        """Take what the store keeps, if it keeps anything, which is one of `possible`."""
        record = self.portal.call(self.stacks[0].store.get, "models", name)
        self.registered.pop(name, None)
        if record is not None:
            kept = Model.model_validate_json(record.value or "")
            self.registered[name] = next(each for each in possible if each is not None and each.of(name) == kept)

    async def attempt(self, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        with suppress(LlamaStackError):  # the outcome is open anyway
            await function(*arguments)

    async def cancel_after(self, turns: int, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.attempt, function, *arguments)
            for _ in range(turns):
                await checkpoint()
            group.cancel_scope.cancel()

    @rule(name=names, provider_id=providers, first=workers, turns=st.integers(0, 20))
    def two_workers_change_it_at_once(self, name: str, provider_id: str, first: int, turns: int) -> None:
        """One unregisters; some turns later the other one registers."""
        one, two = self.stacks[first], self.stacks[1 - first]
        before, wanted = self.registered.get(name), Registered(provider_id, None, 4)

        async def both() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(self.attempt, one.models.unregister_model, name)
                for _ in range(turns):
                    await anyio.sleep(0.0005)
                await self.followers[first].take()
                group.start_soon(self.attempt, two.models.register_model, wanted.of(name))

        self.portal.call(both)
        self.take_from_store(name, before, wanted)

    @rule(worker=workers, name=names, provider_id=providers, succeeds=mostly_not, again=mostly_not)
    def much_happens_during_an_unregistration(
        self, worker: int, name: str, provider_id: str, succeeds: bool, again: bool
    ) -> None:
        """Between the store and the provider, the other worker registers it again, and this one follows the store."""
        one, two, wanted = self.stacks[worker], self.stacks[1 - worker], Registered(provider_id, None, 5)
        before = self.registered.get(name)
        swap, backend = one.store.swap, self.backends[before.provider_id if before else provider_id]
        fail_unregister = backend.fail_unregister

        async def slow(*arguments: Any, **named: Any) -> Any:
            one.store.swap = swap  # type: ignore[method-assign]
            deleted = await swap(*arguments, **named)
            if again:
                await self.attempt(two.models.register_model, wanted.of(name))
            await self.followers[worker].take()
            return deleted

        one.store.swap = slow  # type: ignore[method-assign]
        if not succeeds:
            backend.fail_unregister = ConnectionError("it fails to release")
        try:
            self.outcome(one.models.unregister_model, name)
        finally:
            one.store.swap = swap  # type: ignore[method-assign]
            backend.fail_unregister = fail_unregister
        self.take_from_store(name, before, wanted)
        self.compare()  # before another rule mends what went wrong here

    @rule(worker=workers, name=names, provider_id=providers)
    def it_changes_while_the_follower_reads(self, worker: int, name: str, provider_id: str) -> None:
        """What a worker has just registered counts, and not what its follower read before that."""
        stack, wanted = self.stacks[worker], Registered(provider_id, None, 6)
        before = self.registered.get(name)
        changes_since = stack.store.changes_since

        async def slow(*arguments: Any) -> Any:
            changes = await changes_since(*arguments)
            if before is not None:
                await self.attempt(stack.models.unregister_model, name)
            await self.attempt(stack.models.register_model, wanted.of(name))
            return changes

        stack.store.changes_since = slow  # type: ignore[method-assign]
        try:
            self.portal.call(self.followers[worker].take)
        finally:
            stack.store.changes_since = changes_since  # type: ignore[method-assign]
        self.take_from_store(name, before, wanted)
        known = self.portal.call(stack.models.get_model, name)
        if self.registered.get(name) == wanted:
            assert known is not None
            assert known.metadata == wanted.of(name).metadata

    @rule(worker=workers, provider_id=providers)
    def an_instance_restarts(self, worker: int, provider_id: str) -> None:
        self.portal.call(self.restart, self.stacks[worker].instances["inference"][PROVIDERS.index(provider_id)])

    async def restart(self, instance: SupervisedProvider) -> None:
        """The provider object is another one then, and knows of no registration."""
        instance._running.cancel()
        with anyio.fail_after(10):
            while instance.provider is not None:
                await checkpoint()
            while instance.provider is None:
                instance.wake()
                await anyio.sleep(0.0005)

    @rule(provider_id=providers, down=mostly_not)
    def a_provider_goes_or_comes(self, provider_id: str, down: bool) -> None:
        self.backends[provider_id].go(down=down)

    @rule(provider_id=providers, own=st.sets(names))
    def a_provider_serves(self, provider_id: str, own: set[str]) -> None:
        backend = self.backends[provider_id]
        backend.serves = sorted(own)
        backend.accepts = sorted({*(backend.accepts or ()), *own})

    @rule(lost=names)
    def a_provider_loses(self, lost: str) -> None:
        self.backends["a"].lose(lost)

    @precondition(lambda self: len(self.backends["a"].accepts or ()) <= len(NAMES))
    @rule()
    def a_provider_gets_everything_back(self) -> None:
        self.backends["a"].accepts = [*NAMES, DECLARED]

    def outcome(self, function: Callable[..., Awaitable[None]], *arguments: object) -> LlamaStackError | None:
        try:
            self.portal.call(function, *arguments)
        except LlamaStackError as error:
            return error
        return None

    # ---- what must be so ---------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_half_registered(self) -> None:
        kept = self.portal.call(self.kept)
        assert kept == {name: item.of(name) for name, item in self.registered.items()}

    async def kept(self) -> dict[str, Model]:
        records = await self.stacks[0].store.scan("models", limit=100)
        return {record.key: Model.model_validate_json(record.value or "") for record in records}

    @rule()
    def compare_with_all_providers(self) -> None:
        for backend in self.backends.values():
            backend.go(down=False)
        self.compare()

    @rule(number=st.integers(0, 1))  # a rule with values to choose is chosen more often
    def compare_as_it_is(self, number: int) -> None:
        self.compare()

    def compare(self) -> None:
        """Each worker serves what the model says."""
        listed = []
        for worker in (0, 1, 0):
            self.portal.call(self.settle, worker)
        for stack in self.stacks:
            shown = self.portal.call(stack.models.list_models)
            listed.append({(each.identifier, each.provider_id) for each in shown if not each.unavailable_reason})
            for name in (*NAMES, DECLARED):
                self.check(stack, name)
            self.check_what_is_taken(stack)
        assert listed[0] == listed[1]

    async def settle(self, worker: int) -> None:
        await self.followers[worker].take()
        for _ in range(3):
            for instance in self.stacks[worker].instances["inference"]:
                await instance.refresh(force=True)

    def check(self, stack: Stack, name: str) -> None:
        expected = self.expected(name)
        for backend in self.backends.values():
            backend.calls.clear()
        error = self.outcome(stack.inference.chat_completion, name, [UserMessage(content="x")])
        if isinstance(expected, tuple):
            assert error is None, error
            provider_id, own_name = expected
            assert self.backends[provider_id].last("chat_completion")["model"] == own_name
            instance = stack.instances["inference"][PROVIDERS.index(provider_id)]
            assert own_name in {*instance.served, *instance.provider.taken}
        elif expected is not None:
            assert isinstance(error, expected), error

    def check_what_is_taken(self, stack: Stack) -> None:
        """Each instance has what is registered with it, and nothing that was unregistered or replaced."""
        for instance in stack.instances["inference"]:
            taken = {name: item.metadata for name, item in instance.provider.taken.items() if name != DECLARED}
            wanted = {
                name: item.of(name).metadata
                for name, item in self.registered.items()
                if item.provider_id == instance.provider_id and item.target is None
            }
            assert taken.items() <= wanted.items()

    def expected(self, name: str) -> tuple[str, str] | type[LlamaStackError] | None:
        """(provider, the name it gets), or the error; None if it may be either."""
        item = Registered("b", None, 0) if name == DECLARED else self.registered.get(name)
        if item is not None:
            if self.backends[item.provider_id].is_down or not self.is_taken(name, item):
                return ProviderUnavailableError
            return item.provider_id, item.target or name
        serving = [each.name for each in self.backends.values() if name in each.serves]
        if any(each.is_down for each in self.backends.values()):
            return None  # it depends on what that one listed before
        return (serving[0], name) if serving else ObjectNotFoundError

    def is_taken(self, name: str, item: Registered) -> bool:
        backend = self.backends[item.provider_id]
        if item.target is None:
            return name in (backend.accepts or ())
        target = self.registered.get(item.target)
        if target is None or target.provider_id != item.provider_id or target.target not in (None, item.target):
            return item.target in backend.serves
        return item.target in (backend.accepts or ())


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(
    max_examples=60,
    phases=[Phase.generate],  # to shrink a failure takes minutes: add Phase.shrink by hand
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
