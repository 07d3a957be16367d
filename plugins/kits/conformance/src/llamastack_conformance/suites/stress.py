"""Checks of concurrent calls: each gets its own answer, with its own provider data, and none blocks the others."""

from __future__ import annotations

from typing import Any

import anyio

from llamastack.provider.context import use_provider_data
from llamastack.provider.errors import LlamaStackError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.suite import Suite
from llamastack_conformance.watching import watched_loop

_BETWEEN_S = 0.005
_LOOKS = 2


class StressChecks(Suite):
    """Checks of every provider."""

    @check("stress.parallel-calls", tier=Tier.stress, mend="keep what belongs to a call in local variables")
    async def test_stress_parallel_calls(self, subject: Subject) -> None:
        """fifty concurrent calls all get an answer, each the answer to its own question"""
        tapped = subject.backend_url is not None
        async with subject.start(tapped=tapped) as running:
            await self.prepare(running)
            texts = [self.question(number) for number in range(subject.settings.parallel_calls)]
            await self.prepare_questions(running, texts)
            results = await self._all_at_once(running, texts, [None] * len(texts))
            sent = [request.whole for request in running.tap.requests] if tapped else None
        if sent is not None and self.sends_text:
            unasked = [text for text in texts if not any(text.encode() in request for request in sent)]
            if unasked:
                raise CheckFailure(f"{len(unasked)} of {len(texts)} never reached the backend, such as {unasked[0]!r}")
        wrong = [text for text, result in zip(texts, results, strict=True) if not self.answers(text, result)]
        if wrong:
            raise CheckFailure(f"{len(wrong)} of {len(texts)} got another's answer, such as {wrong[0]!r}")

    @check(
        "stress.provider-data",
        tier=Tier.stress,
        mend="read `deps.request_data()` inside each call, and keep none of it",
    )
    async def test_stress_provider_data(self, subject: Subject) -> None:
        """each of fifty concurrent calls reaches the backend with the key of its own client and no other key"""
        if subject.client_data("") is None:
            raise NotApplicable("the provider takes no keys of clients")
        async with subject.start(tapped=True) as running:
            await self.prepare(running)
            texts = [self.question(number) for number in range(subject.settings.parallel_calls)]
            await self.prepare_questions(running, texts)
            running.tap.requests.clear()
            keys = [f"conformance-key-of-client-{number:03d}" for number in range(len(texts))]
            await self._all_at_once(running, texts, [subject.client_data(own) for own in keys], refusals_are_fine=True)
            sent = [request.whole.decode("latin-1") for request in running.tap.requests]
        if self.sends_text:
            _check_keys_by_text(sent, texts, keys)
        else:
            _check_keys(sent, keys)

    @check(
        "stress.event-loop", tier=Tier.stress, mend="use an async client, or anyio.to_thread.run_sync for blocking code"
    )
    async def test_stress_event_loop(self, subject: Subject) -> None:
        """fifty concurrent calls never block the event loop for 100 ms"""
        limit_s = subject.settings.max_block_ms / 1000
        async with subject.shared() as running:
            await self.prepare(running)
            await self.call(running)
            texts = [self.question(number) for number in range(subject.settings.parallel_calls)]
            await self.prepare_questions(running, texts)
            # Blocking code blocks each time; a busy machine looks like that only now and then.
            for _ in range(_LOOKS):
                with watched_loop() as watch:
                    await self._all_at_once(running, texts, [None] * len(texts), between_s=_BETWEEN_S)
                if watch.longest_s <= limit_s:
                    return
        raise CheckFailure(f"it was blocked for {watch.longest_s * 1000:.0f} ms, at\n{watch.stack}")

    async def _all_at_once(
        self,
        running: Running,
        texts: list[str],
        data: list[Any],
        *,
        refusals_are_fine: bool = False,
        between_s: float = 0.0,
    ) -> list[Any]:
        """The results of one call for each text. between_s: seconds between the starts of two calls."""
        results: list[Any] = [None] * len(texts)

        async def one(place: int) -> None:
            try:
                with use_provider_data(data[place]):
                    results[place] = await self.call(running, texts[place])
            except LlamaStackError:
                if not refusals_are_fine:  # the backend may refuse the keys that are made up here
                    raise

        async with anyio.create_task_group() as group:
            for place in range(len(texts)):
                group.start_soon(one, place)
                if between_s:
                    await anyio.sleep(between_s)
        return results


def _check_keys_by_text(sent: list[str], texts: list[str], keys: list[str]) -> None:
    """Raise CheckFailure unless each request with a text has the key of the client that sent this text."""
    for text, own in zip(texts, keys, strict=True):
        mine = [request for request in sent if text in request]
        if not mine:
            raise CheckFailure(f"no request to the backend holds {text!r}")
        for request in mine:
            foreign = [other for other in keys if other != own and other in request]
            if foreign or own not in request:
                sent_with = foreign[0] if foreign else "no key of a client"
                raise CheckFailure(f"the call of {own} was sent with {sent_with}")


def _check_keys(sent: list[str], keys: list[str]) -> None:
    """Raise CheckFailure unless as many requests have the key of one client as that of any other."""
    counts = {key: sum(key in request for request in sent) for key in keys}
    fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if not counts[fewest] or counts[fewest] != counts[most]:
        got = f"{counts[most]} requests have {most}, and {counts[fewest]} have {fewest}"
        raise CheckFailure(got, wanted="as many requests with each key")
