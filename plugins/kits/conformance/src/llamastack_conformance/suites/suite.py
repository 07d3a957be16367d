"""The base of all suites: what they tell the shared checks about their API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llamastack.provider.errors import LlamaStackError, NotSupportedError
from llamastack.provider.streams import close
from llamastack_conformance.checks import Check, CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.configured import ConfiguredProvider
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running


@dataclass(frozen=True, slots=True)
class Probe:
    """A call that needs a capability, and how its result shows that the provider has it.

    method, arguments: the call of the API. worked: whether its result is what a provider with the capability returns.
    """

    method: str
    arguments: Mapping[str, Any]
    worked: Callable[[Any], bool | Awaitable[bool]] = bool


class Suite:
    """The base of the suites. Inherit from the suite of an API instead.

    api: of the providers. provider_type: the type under test. config: its run config, a file or a mapping; override the
    fixture `llamastack_config` if it must be made. waivers: a file of waivers.
    """

    api: ClassVar[str]
    provider_type: ClassVar[str]
    config: ClassVar[Path | str | Mapping[str, Any] | None] = None
    waivers: ClassVar[Path | str | None] = None
    sends_text: ClassVar[bool] = True
    """Whether the backend gets the text of a call. A vector database gets numbers."""
    type_attribute: ClassVar[str] = "provider_type"
    """The attribute of the class that names what is under test."""

    @classmethod
    def configured(cls, provider_type: str) -> ConfiguredProvider:
        """The provider without a run config: its spec can be read."""
        return ConfiguredProvider(cls.api, provider_type, {})

    @classmethod
    def subject(cls, provider_type: str, document: Mapping[str, Any], on_run: Callable[[Check], None]) -> Subject:
        """The provider under test, with a run config. Raises SubjectError when the config does not fit."""
        made = Subject(cls.api, provider_type, document, on_run=on_run)
        _ = made.entry
        return made

    async def prepare(self, running: Running) -> None:
        """Set up what the calls below need, such as a memory bank."""

    async def call(self, running: Running, text: str = "Say hello.") -> Any:
        """Make one plain call about `text`, as a user does."""
        raise NotImplementedError

    async def put_content(self, running: Running) -> None:
        """Put into the provider what `content` returns. It is called once in a check, before `content`."""
        await self.prepare(running)

    async def content(self, running: Running) -> Any:
        """What `put_content` has put into the provider, as calls of the API return it, for a comparison.

        It changes nothing, and needs nothing of the stack in which `put_content` was called. Raises NotApplicable if
        the API has no such calls.
        """
        raise NotApplicable(f"the suite of API '{self.api}' has no `content`: calls that return what was kept")

    async def remove_behind_its_back(self, subject: Subject, running: Running, item: Any) -> None:
        """Remove a resource, with all that belongs to it, at the backend, so that the provider does not know of it.

        By default another instance of the provider with the same config unregisters it. A suite that can call the
        backend itself overrides this. Raises NotApplicable if there is no way.
        """
        if not subject.declares("unregister"):
            raise NotApplicable("the provider declares no `unregister`")
        async with subject.start(beside=running.folder) as other:
            own = item.model_copy(update={"provider_id": other.provider_id})
            await other.unregister_directly(own)

    async def stream(self, running: Running) -> AsyncIterator[Any]:
        """Make one call with a stream of a dozen pieces or more, if the provider declares streams."""
        raise NotApplicable(f"the provider declares no streams of API '{self.api}'")

    def question(self, number: int) -> str:
        """A text for `call` that is unique to this number."""
        return f"Repeat the word number{number:03d}."

    async def prepare_questions(self, running: Running, texts: list[str]) -> None:
        """Set up what calls about these texts need in addition to `prepare`."""

    def answers(self, text: str, result: Any) -> bool:
        """Whether `result` can be the answer to `call(text)` and not to another call."""
        return True

    async def probe(self, running: Running, capability: str) -> Probe:
        """A call that needs `capability`."""
        raise NotImplementedError

    def unserved_objects(self, subject: Subject) -> list[Any]:
        """Resources that the provider must refuse to register."""
        return [subject.pair.adapter.validate_python({"identifier": subject.settings.unserved})]


def refused(capability: str) -> Any:
    """The check that the provider lacks a capability that it does not declare."""

    async def body(self: Suite, subject: Subject) -> None:
        async with subject.shared() as running:
            await self.prepare(running)
            probe = await self.probe(running, capability)
            definition = subject.method(probe.method)
            arguments = dict(probe.arguments)
            try:
                result = await getattr(running.calls, probe.method)(**running.marked(definition, arguments))
                await close(result)
            except NotSupportedError:
                pass
            except LlamaStackError as error:
                raise CheckFailure(f"{type(error).__name__} ({error.status}): {error.message}") from None
            else:
                raise CheckFailure(f"{probe.method} was answered")
            # The provider is called directly: the stack refuses by the spec, and the spec must not hide a capability.
            routed_by = definition.web.routed_by
            if routed_by is not None:
                arguments[routed_by] = arguments[routed_by].removeprefix(running.qualified(""))
            method = getattr(running.provider, probe.method, None)
            if method is None:
                return
            try:
                result = await method(**arguments)
            except (LlamaStackError, NotImplementedError):
                return
            there = probe.worked(result)
            there = there if isinstance(there, bool) else await there
            await close(result)
            if there:
                raise CheckFailure(f"{probe.method} of the provider itself answers with {capability}")

    body.__name__ = body.__qualname__ = f"test_{capability}_refused"
    body.__doc__ = (
        f"the spec does not declare `{capability}`, so a call that needs it is refused with NotSupportedError (501)"
    )
    return check(
        f"{capability}.refused",
        tier=Tier.live,
        capability=capability,
        declared=False,
        mend=f"declare `{capability}` in the spec's capabilities: as supported if it works, else as unsupported or not "
        "implemented",
    )(body)
