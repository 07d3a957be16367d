"""The suite of the API safety."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar

from llamastack.api.common import UserMessage
from llamastack.api.safety import RunShieldResponse, ViolationLevel
from llamastack.api.shields import Shield
from llamastack_conformance.breakage import Fault
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.failing_calls import failing_calls
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed
from llamastack_conformance.suites.registration import new_object
from llamastack_conformance.suites.safety_messages import MessageChecks, unsafe_of
from llamastack_conformance.suites.suite import Probe, refused
from llamastack_conformance.trials import Trial, break_each_request


class SafetyConformance(MessageChecks):
    """All checks of a safety provider. Source of the shapes: `llamastack.api.safety`."""

    api: ClassVar[str] = "safety"

    async def prepare(self, running: Running) -> None:
        settings = running.subject.settings
        if settings.shield is None and settings.objects and not await running.list_objects():
            await running.register(new_object(running.subject))

    async def call(self, running: Running, text: str | None = None) -> Any:
        content = running.subject.settings.safe if text is None else text
        shield = await self._shield(running)
        return await running.calls.run_shield(shield_type=shield, messages=[UserMessage(content=content)])

    def answers(self, text: str, result: Any) -> bool:
        return isinstance(result, RunShieldResponse)

    async def plain_calls(self, running: Running) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
        """Of the safe text, and of the unsafe one: where the backend fails, neither may get a made-up verdict."""
        texts = [running.subject.settings.safe, running.subject.settings.unsafe]

        def call_of(text: str, is_safe: bool) -> Callable[[], Awaitable[Any]]:
            async def run() -> tuple[bool, Any]:
                return is_safe, await self.call(running, text)

            return run

        return [(f"a call with {text!r}", call_of(text, place == 0)) for place, text in enumerate(texts) if text]

    def answered(self, result: Any) -> bool:
        is_safe, verdict = result
        return isinstance(verdict, RunShieldResponse) and (verdict.violation is None) is is_safe

    @check(
        "run_shield.model-fails",
        tier=Tier.failure,
        capability="run_shield",
        mend="let the error of the inference API through; never let messages pass that no model has read",
    )
    async def test_run_shield_model_fails(self, subject: Subject) -> None:
        """if one call of the model that a shield uses fails, whichever it is, run_shield fails with its error; nothing
        passes, and no violation is made up
        """
        async with subject.start() as running:
            await self.prepare(running)
            calls = await self.plain_calls(running)
            trials = [Trial(name, call, good=self.answered, faults=(Fault.error,)) for name, call in calls]
            used = 0
            for method in ("chat_completion", "completion", "embeddings"):
                with failing_calls(running, "inference", method) as model, suppress(NotApplicable):
                    await break_each_request(running, *trials, at=model)
                    used += 1
        if not used:
            raise NotApplicable("the provider uses no model of the inference API")

    async def probe(self, running: Running, capability: str) -> Probe:
        arguments = {"shield_type": await self._shield(running), "messages": [UserMessage(content="Hello")]}
        return {"run_shield": Probe("run_shield", arguments)}[capability]

    def unserved_objects(self, subject: Subject) -> list[Any]:
        return [Shield(identifier=subject.settings.unserved, type="no-such-type-7f3a")]

    @check(
        "run_shield.passes",
        tier=Tier.live,
        capability="run_shield",
        mend="return RunShieldResponse() without a violation for a safe message",
    )
    async def test_run_shield_passes(self, subject: Subject) -> None:
        """a safe message passes: a RunShieldResponse without a violation"""
        async with subject.shared() as running:
            await self.prepare(running)
            result = await self.call(running)
        well_formed(subject.method("run_shield"), result)
        if result.violation is not None:
            raise CheckFailure(f"{subject.settings.safe!r} gets {result.violation}")

    @check(
        "run_shield.objects",
        tier=Tier.live,
        capability="run_shield",
        mend="return a SafetyViolation with a level and, for the user, a message",
    )
    async def test_run_shield_objects(self, subject: Subject) -> None:
        """an unsafe message gets a violation at any place in the conversation: of the level error, at which callers go
        no further, or of that in `unsafe_level`
        """
        unsafe = unsafe_of(subject)
        conversations = [[unsafe], [unsafe, subject.settings.safe], [subject.settings.safe, unsafe]]
        async with subject.shared() as running:
            await self.prepare(running)
            shield = await self._shield(running)
            for texts in conversations:
                messages = [UserMessage(content=text) for text in texts]
                result = await running.calls.run_shield(shield_type=shield, messages=messages)
                well_formed(subject.method("run_shield"), result)
                level = None if result.violation is None else result.violation.violation_level
                if level is not ViolationLevel(subject.settings.unsafe_level):
                    wanted = f"a violation of the level {subject.settings.unsafe_level} (x-conformance.unsafe_level)"
                    raise CheckFailure(f"{texts} gets {result.violation}", wanted=wanted)

    @check(
        "run_shield.each-its-own",
        tier=Tier.stress,
        capability="run_shield",
        mend="keep what belongs to a call in local variables",
    )
    async def test_run_shield_each_its_own(self, subject: Subject) -> None:
        """in many concurrent calls, exactly the unsafe messages get a violation"""
        unsafe = unsafe_of(subject)
        texts = [(unsafe if n % 2 else subject.settings.safe) for n in range(subject.settings.parallel_calls)]
        async with subject.shared() as running:
            await self.prepare(running)
            results = await self._all_at_once(running, texts, [None] * len(texts))
        wrong = sum((r.violation is not None) != (t == unsafe) for t, r in zip(texts, results, strict=True))
        if wrong:
            raise CheckFailure(f"{wrong} of {len(texts)} got another's verdict")

    test_run_shield_refused = refused("run_shield")
