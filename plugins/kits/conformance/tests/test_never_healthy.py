"""A provider that does not become healthy is waited for once; the checks after it fail at once, with the same words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

pytestmark = pytest.mark.xdist_group("kill_table")  # it shares the broken providers
sys.path.insert(0, str(Path(__file__).parent))

import broken_inference  # noqa: E402
from breaking import Broken, spec_of  # noqa: E402
from scripted_openai import scripted_openai  # noqa: E402

from llamastack_conformance import InferenceConformance, provider_under_test  # noqa: E402
from llamastack_conformance.checks import CheckFailure, NotApplicable, checks_of  # noqa: E402
from llamastack_conformance.provider_under_test import Subject  # noqa: E402
from llamastack_conformance.running import Running  # noqa: E402
from llamastack_provider_openai import OPENAI  # noqa: E402

METHODS = {check.id: name for name, check in checks_of(InferenceConformance)}
CHECKS = ("life.starts", "chat_completion.works", "streaming.order", "life.two-instances", "failure.cut-reply")


class Refuses(broken_inference.Base):
    async def initialize(self) -> None:
        raise ValueError("the model file is not there")


class Hangs(broken_inference.Base):
    starts: ClassVar[list[str]] = []

    async def initialize(self) -> None:
        self.starts.append("one")
        await anyio.sleep_forever()


class LacksAModule(broken_inference.Base):
    async def initialize(self) -> None:
        raise AssertionError("its factory fails before")


async def _without_its_module(config: Any, deps: Any) -> LacksAModule:
    raise ModuleNotFoundError("No module named 'sdk'")


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with scripted_openai() as url:
        yield url


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits for a healthy provider; each looks once, and is over."""
    made: list[float] = []
    waited = Running.becomes_healthy

    async def counted(running: Running, within_s: float) -> bool:
        made.append(within_s)
        return await waited(running, 0.0)

    monkeypatch.setattr(Running, "becomes_healthy", counted)
    return made


def subject_of(cls: type, backend: str, factory: Any = None, **settings: Any) -> Subject:
    model = Broken("", "inference", "", OPENAI, {"url": "{url}", "api_key": "sk-operator-1234"}, settings)
    name = f"never_healthy_{cls.__name__}"
    model.name, model.spec = name, spec_of(OPENAI, name, factory or broken_inference.made_by(cls))
    return model.subject(backend)


def failures(subject: Subject, *ids: str) -> list[CheckFailure]:
    found = []
    with subject.open():
        for check_id in ids:
            with pytest.raises(CheckFailure) as raised:
                getattr(InferenceConformance(), METHODS[check_id])(subject)
            found.append(raised.value)
    return found


def test_the_first_check_waits_and_the_others_fail_at_once(backend: str, waits: list[float]) -> None:
    found = failures(subject_of(Refuses, backend), *CHECKS)
    assert waits == [30.0]
    assert {failure.got for failure in found} == {"the provider is down: ValueError: the model file is not there"}
    assert {failure.mend for failure in found} == {
        "start the backend that the run config names, or correct the run config; later checks do not wait again"
    }


def test_a_check_that_does_not_apply_is_still_none(backend: str, waits: list[float]) -> None:
    subject = subject_of(Refuses, backend, backend_url_field="none")
    failures(subject, "life.starts")
    with subject.open(), pytest.raises(NotApplicable):
        getattr(InferenceConformance(), METHODS["failure.cut-reply"])(subject)
    assert len(waits) == 1


def test_a_start_in_another_way_says_nothing_of_the_config_as_it_is(backend: str, waits: list[float]) -> None:
    async def starts_without_a_tap(config: Any, deps: Any) -> broken_inference.Base:
        cls = broken_inference.Base if str(config.url).rstrip("/") == backend.rstrip("/") else Refuses
        made: broken_inference.Base = await broken_inference.made_by(cls)(config, deps)
        return made

    starts_without_a_tap.__annotations__["return"] = broken_inference.Base
    subject = subject_of(broken_inference.Base, backend, starts_without_a_tap)
    first, second = failures(subject, "failure.cut-reply", "failure.server-error")
    assert first.got == second.got == "the provider is down: ValueError: the model file is not there"
    with subject.open():
        getattr(InferenceConformance(), METHODS["life.starts"])(subject)
    assert len(waits) == 2


@pytest.mark.parametrize("checks", [CHECKS, CHECKS[1:]], ids=["first of its own stack", "first of the shared stack"])
def test_a_start_that_takes_all_the_time_of_a_check_is_made_once(backend: str, checks: tuple[str, ...]) -> None:
    Hangs.starts.clear()
    first, *others = failures(subject_of(Hangs, backend, time_limit_s=2), *checks)
    assert first.got == "nothing for 2 s"
    assert {failure.got for failure in others} == {"the provider does not start within 2 s"}
    assert len(Hangs.starts) == 1


def test_a_fault_that_no_attempt_mends_is_not_waited_for(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_under_test, "_STARTED_BY_S", 3600.0)
    [failure] = failures(subject_of(LacksAModule, backend, _without_its_module), "life.starts")
    assert failure.got == "the provider is down: ModuleNotFoundError: No module named 'sdk'"
