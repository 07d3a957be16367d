"""Fake telemetry providers: sinks that fail as a test wants, and count what they get."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from installed_fakes import EntryPoints
from pydantic import BaseModel

from llamastack.api.telemetry import Event, Telemetry
from llamastack.provider import Api, Capabilities, Deps, InlineProviderSpec
from llamastack_telemetry import FinishedSpan


class FakeSinkConfig(BaseModel):
    """Nothing is set."""


class FakeSink(Telemetry):
    """Keeps spans in memory. fails: raised by the next exports, one each. hangs: exports wait until they are cancelled.

    sizes: of the batches. attempts: how many exports were begun.
    """

    def __init__(self) -> None:
        self.spans: list[FinishedSpan] = []
        self.sizes: list[int] = []
        self.events: list[Event] = []
        self.fails: list[Exception] = []
        self.hangs = False
        self.attempts = 0

    async def log_event(self, event: Event) -> None:
        self.events.append(event)

    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        self.attempts += 1
        if self.hangs:
            await anyio.sleep_forever()
        if self.fails:
            raise self.fails.pop(0)
        self.sizes.append(len(spans))
        self.spans += spans

    async def until(self, number: int) -> list[FinishedSpan]:
        """Wait for as many spans."""
        with anyio.fail_after(20):
            while len(self.spans) < number:
                await anyio.sleep(0.005)
        return self.spans


async def make(config: FakeSinkConfig, deps: Deps) -> FakeSink:
    return FakeSink()


FAKE_SINK = InlineProviderSpec(
    api=Api.telemetry,
    provider_type="fake-sink",
    description="A fake for tests",
    config_class="telemetry_fake:FakeSinkConfig",
    factory="telemetry_fake:make",
    capabilities=Capabilities(
        log_event="supported", get_trace="unsupported", list_traces="unsupported", list_spans="unsupported"
    ),
)
FAKE_SINKS: EntryPoints = {"llamastack.providers.telemetry": {"fake-sink": "telemetry_fake:FAKE_SINK"}}
