"""Checks of what a shield reads: the text of every message, wherever it is, and of what keeps shields apart."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from llamastack.api.common import CompletionMessage, StopReason, SystemMessage, ToolResponseMessage, UserMessage
from llamastack.api.safety import RunShieldResponse, ViolationLevel
from llamastack.provider.errors import (
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    NotSupportedError,
    UnsupportedObjectError,
)
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed
from llamastack_conformance.suites.inference_calls import DOT
from llamastack_conformance.suites.provider import RoutedProviderConformance
from llamastack_conformance.suites.registration import names, new_object

_LENGTHS = (2_000, 20_000)
_MESSAGES = 15
_PRIVATE = "zanzibar7f3a"


class MessageChecks(RoutedProviderConformance):
    """The checks of messages and of shields that are alike."""

    async def _shield(self, running: Running) -> str:
        name = running.subject.settings.shield
        if name is not None:
            return running.qualified(name)
        return running.qualified(running.first_object())

    @check(
        "run_shield.roles",
        tier=Tier.live,
        capability="run_shield",
        mend="read the content of every message, whatever its role",
    )
    async def test_run_shield_roles(self, subject: Subject) -> None:
        """an unsafe text is found in messages of every role: user, system, assistant, tool"""

        def said(text: str) -> dict[str, list[Any]]:
            return {message.role: [message] for message in _of_every_role(text)}

        await self._tells_apart(subject, said(unsafe_of(subject)), said(subject.settings.safe))

    @check(
        "run_shield.parts",
        tier=Tier.live,
        capability="run_shield",
        mend="read every text of a content that is a list: `llamastack.api.common.texts_of`",
    )
    async def test_run_shield_parts(self, subject: Subject) -> None:
        """an unsafe text is found in content that is a list of texts, in the first, a middle and the last part"""
        safe = subject.settings.safe

        def said(text: str) -> dict[str, list[Any]]:
            parts = {"the first": [text, safe, safe], "a middle": [safe, text, safe], "the last": [safe, safe, text]}
            return {f"{place} part": [UserMessage(content=[*content])] for place, content in parts.items()}

        await self._tells_apart(subject, said(unsafe_of(subject)), said(safe))

    @check(
        "run_shield.context",
        tier=Tier.live,
        capability="run_shield",
        mend="read `context` of a UserMessage as well, which the model gets: `llamastack.api.common.texts_of`",
    )
    async def test_run_shield_context(self, subject: Subject) -> None:
        """an unsafe text is found in the context of a user's message, which is a text or a list of texts"""
        safe = subject.settings.safe

        def said(text: str) -> dict[str, list[Any]]:
            return {
                "context": [UserMessage(content=safe, context=text)],
                "a part of the context": [UserMessage(content=safe, context=[safe, text])],
            }

        await self._tells_apart(subject, said(unsafe_of(subject)), said(safe))

    @check(
        "run_shield.long",
        tier=Tier.live,
        capability="run_shield",
        mend="read the whole text: send it to the model in pieces if it is too long for one request",
    )
    async def test_run_shield_long(self, subject: Subject) -> None:
        """an unsafe text is found after 2,000 and after 20,000 characters of safe text, also with safe text after it"""
        safe = subject.settings.safe

        def said(text: str) -> dict[str, list[Any]]:
            found = {}
            for length in _LENGTHS:
                filler = "\n".join([safe] * (length // (len(safe) + 1) + 1))
                found[f"{length} characters before it"] = [UserMessage(content=f"{filler}\n{text}")]
                found[f"{length} characters around it"] = [UserMessage(content=f"{filler}\n{text}\n{filler}")]
            return found

        await self._tells_apart(subject, said(unsafe_of(subject)), said(safe))

    @check(
        "run_shield.many",
        tier=Tier.live,
        capability="run_shield",
        mend="read all messages, not only the newest ones",
    )
    async def test_run_shield_many(self, subject: Subject) -> None:
        """an unsafe text is found in the first, a middle and the last of 15 messages"""
        safe = subject.settings.safe

        def said(text: str) -> dict[str, list[Any]]:
            return {
                f"message {place + 1} of {_MESSAGES}": [
                    _said(place=n, text=text if n == place else safe) for n in range(_MESSAGES)
                ]
                for place in (0, _MESSAGES // 2, _MESSAGES - 1)
            }

        await self._tells_apart(subject, said(unsafe_of(subject)), {"safe messages": said(safe)["message 1 of 15"]})

    @check(
        "run_shield.every-reason",
        tier=Tier.live,
        capability="run_shield",
        mend="apply all words, topics or patterns of the shield, not only the first",
    )
    async def test_run_shield_every_reason(self, subject: Subject) -> None:
        """each message of x-conformance.unsafe_more gets a violation, alone and after a safe one"""
        safe = subject.settings.safe
        if not subject.settings.unsafe_more:
            raise NotApplicable("name messages that the shield reports for other reasons in x-conformance.unsafe_more")
        said = {}
        for text in subject.settings.unsafe_more:
            said[f"{text!r} alone"] = [UserMessage(content=text)]
            said[f"{text!r} after a safe one"] = [UserMessage(content=safe), UserMessage(content=text)]
        await self._tells_apart(subject, said, {"a safe message": [UserMessage(content=safe)]})

    @check(
        "run_shield.private",
        tier=Tier.live,
        capability="run_shield",
        mend="put into a violation what was found, and never the messages: callers log violations and show them",
    )
    async def test_run_shield_private(self, subject: Subject) -> None:
        """a violation holds nothing of the messages that are not unsafe"""
        safe = f"{subject.settings.safe} {_PRIVATE}"
        unsafe = UserMessage(content=unsafe_of(subject))
        async with subject.shared() as running:
            await self.prepare(running)
            shield = await self._shield(running)
            for messages in ([UserMessage(content=safe), unsafe], [unsafe, *_of_every_role(safe)]):
                result = await running.calls.run_shield(shield_type=shield, messages=messages)
                shown = result.model_dump_json()
                if _PRIVATE in shown:
                    raise CheckFailure(f"the violation has another message's text: {shown[:300]}")

    @check(
        "run_shield.case",
        tier=Tier.live,
        capability="run_shield",
        mend="compare texts with str.casefold(), or do not set x-conformance.unsafe_any_case",
    )
    async def test_run_shield_case(self, subject: Subject) -> None:
        """an unsafe text is found in upper and in lower case (x-conformance.unsafe_any_case)"""
        unsafe = unsafe_of(subject)
        if not subject.settings.unsafe_any_case:
            raise NotApplicable("x-conformance.unsafe_any_case does not say that case does not count")
        texts = (unsafe.upper(), unsafe.lower(), unsafe.swapcase())
        await self._tells_apart(subject, {repr(text): [UserMessage(content=text)] for text in texts}, {})

    @check(
        "run_shield.blanks",
        tier=Tier.live,
        capability="run_shield",
        mend="split texts into words before you compare, or do not set x-conformance.unsafe_any_blanks",
    )
    async def test_run_shield_blanks(self, subject: Subject) -> None:
        """an unsafe text is found with line breaks or several blanks between words (x-conformance.unsafe_any_blanks)"""
        words = unsafe_of(subject).split()
        if not subject.settings.unsafe_any_blanks or len(words) < 2:
            raise NotApplicable("x-conformance.unsafe_any_blanks is not set, or `unsafe` is one word")
        texts = [blank.join(words) for blank in ("\n", "   ", "\t", " \r\n ")]
        await self._tells_apart(subject, {repr(text): [UserMessage(content=text)] for text in texts}, {})

    @check(
        "run_shield.images",
        tier=Tier.live,
        capability="run_shield",
        mend="read the texts of a message with `texts_of`; judge its images, leave them, or raise NotSupportedError",
    )
    async def test_run_shield_images(self, subject: Subject) -> None:
        """a safe text beside an image is no error of the server, and an unsafe one is reported, or the image is refused
        with a 400 or 501
        """
        async with subject.shared() as running:
            await self.prepare(running)
            shield = await self._shield(running)
            for text in (subject.settings.safe, subject.settings.unsafe):
                for content in ([text, DOT], [DOT, text]) if text else ():
                    try:
                        reported = await _reports(running, shield, [UserMessage(content=content)])
                    except (InvalidRequestError, NotSupportedError):
                        continue
                    except LlamaStackError as error:
                        raise CheckFailure(
                            f"{text!r} beside an image: {type(error).__name__}: {error.message}"
                        ) from None
                    if text == subject.settings.unsafe and not reported:
                        raise CheckFailure(f"{text!r} passes beside an image")

    @check(
        "run_shield.empty",
        tier=Tier.live,
        capability="run_shield",
        mend="let no messages pass, or raise InvalidRequestError; do not expect a first or a last message",
    )
    async def test_run_shield_empty(self, subject: Subject) -> None:
        """no messages are answered without a violation, or refused with InvalidRequestError (400)"""
        async with subject.shared() as running:
            await self.prepare(running)
            shield = await self._shield(running)
            try:
                result = await running.calls.run_shield(shield_type=shield, messages=[])
            except InvalidRequestError:
                return
            except LlamaStackError as error:
                raise CheckFailure(f"{type(error).__name__}: {error.message}") from None
        well_formed(subject.method("run_shield"), result)
        if result.violation is not None:
            raise CheckFailure(f"no messages get {result.violation}")

    @check(
        "run_shield.unknown",
        tier=Tier.live,
        capability="run_shield",
        mend="raise ObjectNotFoundError for a shield that is not served; never let messages pass",
    )
    async def test_run_shield_unknown(self, subject: Subject) -> None:
        """a shield that is unknown to the provider is NotFoundError (404), also where the stack does not look first"""
        messages = [UserMessage(content=subject.settings.safe)]
        async with subject.shared() as running:
            await self.prepare(running)
            for target in (running.calls, running.provider):
                try:
                    result = await target.run_shield(shield_type=subject.settings.unserved, messages=messages)
                except NotFoundError:
                    continue
                except LlamaStackError as error:
                    raise CheckFailure(f"{type(error).__name__}: {error.message}") from None
                raise CheckFailure(f"'{subject.settings.unserved}' answers {result}")

    @check(
        "run_shield.apart",
        tier=Tier.live,
        capability="run_shield",
        mend="use the params of the shield that is called; keep the shield in the key of a cache of verdicts",
    )
    async def test_run_shield_apart(self, subject: Subject) -> None:
        """shields report what their own params say, also when they alternate over the same texts
        (x-conformance.unsafe_by_shield)
        """
        texts = subject.settings.unsafe_by_shield
        if len(texts) < 2:
            raise NotApplicable("name two shields, each with a message that only it reports, in unsafe_by_shield")
        offered = [subject.pair.adapter.validate_python(item) for item in subject.settings.objects]
        async with subject.start() as running:
            await self.prepare(running)
            listed = await names(running)
            for item in offered:
                if item.identifier in texts and item.identifier not in listed:
                    await running.register(item)
            for _ in range(2):
                for owner, text in texts.items():
                    for shield in texts:
                        found = await _reports(running, running.qualified(shield), [UserMessage(content=text)])
                        if found is not (shield == owner):
                            raise CheckFailure(f"shield '{shield}' {'reports' if found else 'lets pass'} {text!r}")

    @check(
        "unregister.alike",
        tier=Tier.live,
        capability="unregister",
        mend="keep each shield under its whole name, as it is: no folding of case, no search by prefix",
    )
    async def test_unregister_alike(self, subject: Subject) -> None:
        """of shields whose names begin alike or differ in case, unregistering one, also twice, leaves the others"""
        item = new_object(subject)
        alike = [f"{item.identifier}-alike{end}" for end in ("", "-1", "-10", "-a", "-A")]
        async with subject.start() as running:
            await self.prepare(running)
            before = await names(running)
            for name in alike:
                try:
                    await running.register(item.model_copy(update={"identifier": name}))
                except UnsupportedObjectError as error:
                    raise NotApplicable(f"the provider takes no shield of another name: {error.message}") from None
            for place, name in enumerate(alike):
                await running.unregister(name)
                with suppress(NotFoundError):  # both are correct for a resource that is gone
                    await running.unregister_directly(item.model_copy(update={"identifier": name}))
                left = [*before, *alike[place + 1 :]]
                if sorted(await names(running)) != sorted(left):
                    raise CheckFailure(f"without '{name}' it lists {await names(running)}", wanted=f"{left}")
                for other in alike[place + 1 :]:
                    await _reports(running, running.qualified(other), [UserMessage(content=subject.settings.safe)])

    async def _tells_apart(self, subject: Subject, unsafe: dict[str, list[Any]], safe: dict[str, list[Any]]) -> None:
        """Each conversation of `unsafe` gets a violation, and none of `safe`. The keys say where the text is."""
        async with subject.shared() as running:
            await self.prepare(running)
            shield = await self._shield(running)
            for wanted, conversations in ((True, unsafe), (False, safe)):
                for place, messages in conversations.items():
                    if await _reports(running, shield, messages) is not wanted:
                        raise CheckFailure(
                            f"the {'unsafe' if wanted else 'safe'} text in {place} "
                            f"{'passes' if wanted else 'gets a violation'}"
                        )


def unsafe_of(subject: Subject) -> str:
    """The message that the shield reports. Raises NotApplicable if the settings name none."""
    if subject.settings.unsafe is None:
        raise NotApplicable("name a message that the shield reports as a violation in x-conformance.unsafe")
    return subject.settings.unsafe


async def _reports(running: Running, shield: str, messages: Sequence[Any]) -> bool:
    result = await running.calls.run_shield(shield_type=shield, messages=[*messages])
    if not isinstance(result, RunShieldResponse):
        raise CheckFailure(f"a {type(result).__name__}", wanted="a RunShieldResponse")
    return result.violation is not None and result.violation.violation_level is not ViolationLevel.info


def _of_every_role(text: str) -> list[Any]:
    return [
        UserMessage(content=text),
        SystemMessage(content=text),
        CompletionMessage(content=text, stop_reason=StopReason.end_of_turn),
        ToolResponseMessage(call_id="call-1", tool_name="look_up", content=text),
    ]


def _said(place: int, text: str) -> Any:
    """By the user and the assistant in turn."""
    return _of_every_role(text)[0 if place % 2 == 0 else 2]
