"""Checks of what reaches the backend at the edges: zeros, blanks in stop texts, names in the config, refused keys."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from pydantic import ValidationError

from llamastack.api.common import SamplingParams, UserMessage
from llamastack.provider.context import use_provider_data
from llamastack.provider.errors import InvalidRequestError, LlamaStackError, NotFoundError, NotSupportedError
from llamastack_adapters.chat_request import ChatRequest
from llamastack_conformance.backend_tap import always, answer
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.received import Leaf, Received
from llamastack_conformance.replaying import replayed
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import BRIEF
from llamastack_conformance.suites.inference_kinds import KindChecks
from llamastack_conformance.suites.inference_received import SAMPLING, check_greedy, check_has, shown
from llamastack_conformance.suites.inference_ways import Way, holding, received

_SAMPLED: dict[str, Any] = {"strategy": "top_p", "max_tokens": 2}
# What a parameter has to be at the backend. (parameter, all parameters of the call, the value, how backends name it)
_EDGES: tuple[tuple[str, dict[str, Any], Leaf, str], ...] = (
    ("seed", {**_SAMPLED, "temperature": 0.7312, "seed": 0}, 0, "seed"),
    ("max_tokens", {"max_tokens": 1}, 1, "max|predict|length|limit"),
    ("stop", {"max_tokens": 2, "stop": ["\n"]}, "\n", "stop"),
    ("stop", {"max_tokens": 2, "stop": [" qzbefore", "qzafter\n\n"]}, " qzbefore", "stop"),
    ("stop", {"max_tokens": 2, "stop": [" qzbefore", "qzafter\n\n"]}, "qzafter\n\n", "stop"),
)
_GREEDY = (
    {**_SAMPLED, "temperature": 0.0, "top_p": 0.9},
    {"strategy": "greedy", "temperature": 0.7312, "max_tokens": 2},
)
_SHORTEST_LIMIT = 128
_LIMIT = re.compile(
    r"max_?(?:new_|completion_|gen_|output_)?(?:tokens|len|length)|num_predict|n_predict", re.IGNORECASE
)
_ALIASES = ("qz-conformance-alias", "qz-conformance-alias-of-embedder")
_CLIENTS_KEY = "conformance-key-of-a-refused-client"


class ReceivedEdgeChecks(KindChecks):
    """The checks of what the backend receives of unusual, but valid, calls."""

    @check(
        "received.edges",
        tier=Tier.live,
        capability="chat_completion",
        mend="compare a parameter with None, not with its truth; strip no stop text; send no limit that nobody gave",
    )
    async def test_received_edges(self, subject: Subject) -> None:
        """the seed 0, one token and stop texts with blanks and line breaks arrive; the temperature 0 is greedy, and so
        is `greedy` with a temperature; without `max_tokens` no short limit is sent
        """
        async with subject.shared(tapped=True) as running:
            model = await self._model(running)
            async for way, plain in self.replaying_ways(running):

                async def sent(word: str, given: dict[str, Any] | None, way: Way = way) -> list[Received]:
                    messages = [UserMessage(content=f"Say {word}.")]
                    params = None if given is None else SamplingParams(**given)
                    request = ChatRequest(model, messages, params)
                    return (await self.sent(running, way, request, word))[-1:]

                for number, (name, given, value, pattern) in enumerate(_EDGES):
                    for one in await sent(f"qzedge{number}", given):
                        check_has(way.name, one, name, value, pattern)
                for number, given in enumerate(_GREEDY):
                    for one in await sent(f"qzgreedy{number}", given):
                        check_greedy(way.name, one)
                if way.native:
                    for one in (*await sent("qznolimit", {}), *await sent("qznoparams", None)):
                        check_greedy(way.name, one)
                        _check_no_limit(way, one, plain)

    @check(
        "received.completion",
        tier=Tier.live,
        capability="completion",
        mend="pass each sampling parameter in text completions as in chats, or raise NotSupportedError",
    )
    async def test_received_completion(self, subject: Subject) -> None:
        """the backend receives each sampling parameter of a text completion, and all parts of its text, whole and
        streamed
        """
        async with subject.shared(tapped=True) as running:
            for name, complete in self._texts(running):
                running.tap.clear()
                await received(running, complete("Say qzplain.", BRIEF))
                running.tap.disturb(inject=await replayed(running.tap))
                for number, (param, given, value, pattern) in enumerate((*SAMPLING, *_EDGES)):
                    params = SamplingParams(**{"max_tokens": 2, **given})
                    word = f"qzc{number}z"
                    for sent in (await _completed(running, name, complete(f"Say {word}.", params), word))[-1:]:
                        if param != "repetition_penalty":  # some backends have it in terms of their own
                            check_has(name, sent, param, value, pattern)
                words = ("qzcfirst", "qzcmiddle", "qzclast")
                for sent in (await _completed(running, name, complete([*words], BRIEF), "qzc"))[-1:]:
                    if missing := [word for word in words if sent.times(word) != 1]:
                        raise CheckFailure(f"{name}: of {words} the backend does not receive {missing} once")

    def _texts(self, running: Running) -> Iterator[tuple[str, Callable[[Any, SamplingParams], Awaitable[Any]]]]:
        for stream in (False, True) if running.subject.declares("streaming") else (False,):

            def complete(text: Any, params: SamplingParams, stream: bool = stream) -> Awaitable[Any]:
                return self._complete(running, text, sampling_params=params, stream=stream)

            yield f"completion{', streamed' if stream else ''}", complete

    @check(
        "received.alias",
        tier=Tier.live,
        mend="translate the names of the config into the backend's in one place, for every kind of call",
    )
    async def test_received_alias(self, subject: Subject) -> None:
        """a name that the config's `models` gives to a model works in every kind of call, and the backend gets its own
        name of the model
        """
        if "models" not in subject.config_class.model_fields:
            raise NotApplicable("the config has no `models`")
        async with subject.shared() as running:
            real = [await self._model(running), await self._embedder(running)]
        models = {alias: name.partition("/")[2] for alias, name in zip(_ALIASES, real, strict=True)}
        try:
            subject.config_class.model_validate({**subject.config, "models": models})
        except ValidationError:
            raise NotApplicable("`models` of the config gives no further names") from None
        async with subject.start(tapped=True, changes={"models": models}) as running:
            if not running.instance.served.keys() >= models.keys():
                raise NotApplicable("`models` of the config gives no further names")
            for name, call in self._by_alias(running):
                try:
                    result, found = await received(running, call)
                except NotFoundError as error:
                    result, found = error, []
                if isinstance(result, LlamaStackError):
                    raise CheckFailure(f"{name} of a name in the config's `models`: {result.message}")
                if any(alias in sent.words for sent in found for alias in models):
                    raise CheckFailure(f"{name}: the backend receives a name that only the config knows")

    def _by_alias(self, running: Running) -> Iterator[tuple[str, Awaitable[Any]]]:
        """Calls of every kind, by names of the config."""
        declares, calls = running.subject.declares, running.calls
        model, embedder = map(running.qualified, _ALIASES)
        if declares("chat_completion"):
            request = ChatRequest(model, [UserMessage(content="Say qzalias.")], BRIEF)
            for way in self.ways(running):
                yield way.name, way.ask(running, request)
        if declares("completion"):
            for stream in (False, True) if declares("streaming") else (False,):
                call = calls.completion(model=model, content="Say qzalias.", sampling_params=BRIEF, stream=stream)
                yield f"completion{', streamed' if stream else ''}", call
        if declares("embeddings"):
            yield "embeddings", calls.embeddings(model=embedder, contents=["qzalias"])

    @check(
        "received.parts",
        tier=Tier.live,
        capability="embeddings",
        mend="embed all texts of a content together, or raise NotSupportedError; leave out none",
    )
    async def test_received_parts(self, subject: Subject) -> None:
        """all texts of a content that is a list reach the model that embeds it, or the call is refused"""
        words = ("qzpartone", "qzparttwo", "qzpartthree")
        async with subject.shared(tapped=True) as running:
            running.tap.requests.clear()
            try:
                await self._embed(running, [[f"See {word}." for word in words], "qzalone"])
            except (InvalidRequestError, NotSupportedError):
                return
            found = [Received(request) for request in running.tap.requests]
            missing = [word for word in words if not any(sent.times(word) for sent in found)]
            if missing:
                raise CheckFailure(f"no request to the backend holds {', '.join(missing)}, of one content with {words}")

    @check(
        "failure.clients-key",
        tier=Tier.failure,
        mend="make a call with the client's key alone; never with another one when that is refused",
    )
    async def test_failure_clients_key(self, subject: Subject) -> None:
        """a call whose client's key the backend refuses is made with no other key"""
        data, own = subject.client_data(_CLIENTS_KEY), subject.secret_values()
        if data is None or not own:
            raise NotApplicable("the provider has no keys of its own beside those of clients")
        changes = {name: value for name, value in own.items() if name in subject.secret_names}
        async with subject.start(tapped=True, changes=changes) as running:
            kinds = await self.kinds(running)
            for status in (401, 403):
                running.tap.disturb(inject=always(answer(status, '{"error": {"message": "no luck"}}')))
                for kind in kinds:
                    running.tap.requests.clear()
                    with use_provider_data(data):
                        try:
                            await kind.make("Say hello.")
                        except LlamaStackError:
                            pass
                        else:
                            raise CheckFailure(f"{kind.name}: a reply, although the client's key gets a {status}")
                    sent = b"".join(request.whole for request in running.tap.requests)
                    if any(value.encode() in sent for value in own.values()):
                        raise CheckFailure(f"{kind.name}: after a {status} for the client's key, the config's is sent")


def _check_no_limit(way: Way, sent: Received, plain: Received) -> None:
    for path, value in sent.leaves:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if is_number and _LIMIT.search(path.rpartition(".")[2]) and 0 < int(value or 0) < _SHORTEST_LIMIT:
            raise CheckFailure(
                f"{way.name} without `max_tokens`: {path}={value}",
                wanted=f"no limit, or one that no usual reply reaches; a plain chat sends {shown(plain)}",
            )


async def _completed(running: Running, name: str, call: Awaitable[Any], word: str) -> list[Received]:
    """The requests of a text completion that hold `word`; none if the provider refuses it by name.

    Raises CheckFailure, or the error of the call, if no request holds it.
    """
    result, found = await received(running, call)
    return [] if isinstance(result, NotSupportedError) else holding(word, found, name, result)
