"""Checks of prompts (raw ones, too long ones, private ones) and of fresh listings."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any

from llamastack.provider.errors import InvalidRequestError, LlamaStackError
from llamastack_conformance.backend_tap import always, answer
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.log_capture import everything_logged
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.received import Received
from llamastack_conformance.replaying import completed, is_text, reframed, target_of
from llamastack_conformance.running import Running
from llamastack_conformance.suites.failure import expect_error
from llamastack_conformance.suites.inference_calls import PLAIN, read
from llamastack_conformance.suites.inference_kinds import KindChecks
from llamastack_conformance.suites.inference_ways import ANSWERS

_PRIVATE = "qzprivatewords"
_RAW = "qzrawprompt"
_TOO_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
_NEW = "qz-new-model"
_FAILURES = {
    "a 400": answer(400, json.dumps({"error": {"message": "no luck", "code": None}, "message": "no luck"})),
    "a 500": answer(500, json.dumps({"error": {"message": "no luck", "code": None}, "message": "no luck"})),
    "a 200 with nothing in it": answer(200, "{}"),
    "a 200 with a page": answer(200, "<html>no luck</html>", media_type="text/html"),
}


class PromptChecks(KindChecks):
    """The checks of prompts and of listings."""

    @check(
        "received.prompt",
        tier=Tier.live,
        capability="completion",
        mend="send a text completion to the backend's endpoint for raw prompts, not to that for chats",
    )
    async def test_received_prompt(self, subject: Subject) -> None:
        """the text of a completion reaches a backend of OpenAI's dialect as a raw prompt, not as a message of a chat"""
        async with subject.shared(tapped=True) as running:
            for stream in (False, True) if subject.declares("streaming") else (False,):

                async def ask(text: str = "One, two,", stream: bool = stream) -> Any:
                    return await read(await self._complete(running, text, sampling_params=PLAIN, stream=stream))

                name = f"completion{', streamed' if stream else ''} of {await self._model(running)}"
                await ANSWERS.prime(subject, running.tap, name, ask)
                running.tap.requests.clear()
                await ask(f"{_RAW} one, two,")
                sent = [Received(request) for request in running.tap.requests]
                mine = [one for one in sent if _RAW in one.words]
                if not mine:
                    raise CheckFailure(f"{name}: no request to the backend holds the text {_RAW!r} of the call")
                for one in mine:
                    _is_raw(name, one)

    @check(
        "failure.prompts",
        tier=Tier.failure,
        mend="never put a request or its texts into an error or a log line; log the sizes instead",
    )
    async def test_failure_prompts(self, subject: Subject) -> None:
        """the user's text is in no log line at INFO or above, whether a call succeeds or fails, and in no error"""
        with everything_logged(logging.INFO) as logged:
            async with subject.start(tapped=True) as running:
                for kind in await self.kinds(running):
                    make = partial(kind.make, f"Say {_PRIVATE}.")
                    await ANSWERS.prime(subject, running.tap, kind.known_as, make)
                for name, injected in _FAILURES.items():
                    running.tap.disturb(inject=always(injected))
                    await self._keep_private(running, name)
                await running.tap.refuse()
                await self._keep_private(running, "a refused connection")
        for line in logged:
            if _PRIVATE in line:
                raise CheckFailure(f"the user's text is in the log: {line[:300]}")

    async def _keep_private(self, running: Running, what: str) -> None:
        for kind in await self.kinds(running):
            try:
                await kind.make(f"Say {_PRIVATE}.")
            except LlamaStackError as error:
                text = f"{error} {error!r} {json.dumps(error.to_wire())}"
                if _PRIVATE in text:
                    raise CheckFailure(
                        f"{kind.name} at {what}: the user's text is in the error: {text[:300]}"
                    ) from None

    @check(
        "failure.too-long",
        tier=Tier.failure,
        mend="map a 400 to InvalidRequestError, or ContextLengthExceededError, with the backend's message, everywhere",
    )
    async def test_failure_too_long(self, subject: Subject) -> None:
        """in every kind of call, a backend's 400 for a prompt that is too long is InvalidRequestError (400), with its
        words
        """
        error = {"message": _TOO_LONG, "type": "invalid_request_error", "param": "messages"}
        body = json.dumps({"error": {**error, "code": "context_length_exceeded"}, "message": _TOO_LONG})
        async with subject.start(tapped=True) as running:
            running.tap.disturb(inject=always(answer(400, body)))
            for kind in await self.kinds(running):
                try:
                    raised = await expect_error(running, partial(kind.make, "Say hello."), InvalidRequestError)
                except CheckFailure as failure:
                    raise CheckFailure(f"{kind.name}: {failure.got}", wanted=failure.wanted) from None
                if _TOO_LONG not in raised.message:
                    raise CheckFailure(f"{kind.name}: the error says: {raised.message}", wanted=_TOO_LONG)

    @check(
        "listing.fresh",
        tier=Tier.failure,
        mend="ask the backend at each listing, and raise if it does not answer; keep no list",
    )
    async def test_listing_fresh(self, subject: Subject) -> None:
        """a listing while the backend is down raises, and one after it came back with other models has these"""
        async with subject.start(tapped=True) as running:
            listed = [model.identifier for model in await running.list_objects()]
            # A provider may have asked when it started, and keep what it has read then.
            answers = {target_of(one.request): await completed(one) for one in running.tap.exchanges}
            if not any(name.encode() in found for name in listed for found in answers.values()):
                raise NotApplicable("the provider does not list what its backend has")
            await running.tap.refuse()
            await _raises_no_list(running)
            config = str(running.instance.plan.config)
            own = [name for name in listed if repr(name) not in config]  # not those of the config
            changed = {target: _with_model(found, own) for target, found in answers.items()}
            if changed == answers:
                raise NotApplicable("the config names the models, or the backend's answers do not hold them as JSON")
            running.tap.disturb(inject=lambda request: changed.get(target_of(request)))
            await running.tap.listen()
            after = [model.identifier for model in await running.list_objects()]
            if not any(_NEW in name for name in after):
                raise CheckFailure(f"listed: {after}", wanted=f"'{_NEW}', which the backend has now")


def _is_raw(name: str, sent: Received) -> None:
    paths = [path for path, value in sent.leaves if isinstance(value, str) and _RAW in value]
    if sent.target.endswith("/completions") and any(path.startswith("messages.") for path in paths):
        raise CheckFailure(f"{name}: the text reaches {sent.target} in {', '.join(paths)}", wanted="a raw prompt")


async def _raises_no_list(running: Running) -> None:
    try:
        listed = await running.list_objects()
    except LlamaStackError:
        return
    raise CheckFailure(f"a list of {len(listed)} models while the backend is down", wanted="an error")


def _with_model(found: bytes, names: list[str]) -> bytes:
    """The answer with another name in place of one of these; unchanged if it holds none of them."""
    for name in names:
        quoted = json.dumps(name).encode()
        if is_text(found) and quoted in found:
            new = json.dumps(_NEW).encode()
            return reframed(found, lambda body, old=quoted, new=new: body.replace(old, new))  # type: ignore[misc]
    return found
