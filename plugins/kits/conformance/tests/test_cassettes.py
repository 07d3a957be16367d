"""What a backend answered is recorded, the backend is stopped, and the suite says the same without it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("kill_table")  # it shares the broken providers
sys.path.insert(0, str(Path(__file__).parent))

import broken_inference  # noqa: E402
import scripted_memory  # noqa: E402
from breaking import BROKEN, Broken, spec_of  # noqa: E402
from scripted_openai import scripted_openai  # noqa: E402

from llamastack.api import SystemMessage  # noqa: E402
from llamastack.stack.discovery import Discovery  # noqa: E402
from llamastack_conformance import InferenceConformance, MemoryConformance  # noqa: E402
from llamastack_conformance.cassettes import cassette as files  # noqa: E402
from llamastack_conformance.cassettes.session import CassetteSession  # noqa: E402
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, checks_of  # noqa: E402
from llamastack_conformance.configured import SubjectError  # noqa: E402
from llamastack_conformance.provider_under_test import Subject  # noqa: E402
from llamastack_provider_openai import OPENAI  # noqa: E402

NOWHERE = "http://127.0.0.1:9/v1"
KEY = "sk-operator-of-the-cassettes-1234"
SOME = ("life.starts", "chat_completion.works", "streaming.order")


@dataclass
class Run:
    """What the checks of a run found, by their ids, and what the session says."""

    found: dict[str, str]
    notes: list[str]
    faults: list[str]


def inference(cls: type = broken_inference.Base, **config: Any) -> tuple[Broken, type]:
    """A provider of OpenAI's dialect; `cls` decides what it does wrong."""
    given = {"url": "{url}", "api_key": KEY, **config}
    model = Broken("", "inference", f"cassette_{cls.__name__}", OPENAI, given)
    model.spec = spec_of(OPENAI, "cassette_inference", broken_inference.made_by(cls))
    return model, InferenceConformance


def memory() -> tuple[Broken, type]:
    given = {"url": "{url}/memory/cassettes", "api_key": KEY}
    settings = {"objects": [{"identifier": "notes", "type": "keyword"}]}
    model = Broken("", "memory", "cassette_memory", scripted_memory.REST_MEMORY, given, settings)
    model.spec = spec_of(scripted_memory.REST_MEMORY, model.name, scripted_memory.make_rest_memory)
    return model, MemoryConformance


def run(made: tuple[Broken, type], url: str, file: Path, *, records: bool = False, only: tuple[str, ...] = ()) -> Run:
    """Run the checks that start the provider, or `only` some of them."""
    model, suite = made
    subject = model.subject(url)
    session = CassetteSession(subject, file, records=records)
    subject.use_cassette(session)
    found = {}
    with session.open(), subject.open():
        for name, check in checks_of(suite):
            if check.tier is Tier.static or (only and check.id not in only):
                continue
            if check.capability and subject.spec.capabilities.holds(check.capability) is not check.declared:
                continue
            found[check.id] = outcome(suite, name, subject)
    return Run(found, session.notes, session.faults)


def outcome(suite: type, name: str, subject: Subject) -> str:
    try:
        getattr(suite(), name)(subject)
    except CheckFailure as failure:
        return f"failed: {failure.got} {failure.mend}"
    except NotApplicable:
        return "not applicable"
    return "passed"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A cassette of all checks of inference; its backend does not run any more."""
    file = tmp_path_factory.mktemp("cassettes") / "inference.json"
    with scripted_openai() as url:
        return file, run(inference(), url, file, records=True)


def test_the_suite_of_inference_says_the_same_without_the_backend(recorded: tuple[Path, Run]) -> None:
    file, before = recorded
    after = run(inference(), NOWHERE, file)
    assert after.found == before.found
    assert {"passed", "not applicable"} == set(after.found.values())
    assert len(after.found) > 50
    assert after.faults == before.faults == []
    [note] = after.notes
    assert "up to date" in note


def of_each_family(suite: type) -> tuple[str, ...]:
    """One check of each topic, and every one of those that restart the stack or break the n-th request.

    More of them would send the same kinds of requests, and many more: a cassette of all takes a minute to record.
    """
    found: dict[str, str] = {}
    for _, check in checks_of(suite):
        if check.tier is not Tier.static:
            found.setdefault(check.id if check.topic in ("restart", "nth-request") else check.topic, check.id)
    return tuple(found.values())


def test_the_suite_of_memory_says_the_same_without_the_backend(tmp_path: Path) -> None:
    """Its backend has a state, and its requests have ids and times that differ in each run."""
    file = tmp_path / "memory.json"
    some = of_each_family(MemoryConformance)
    assert len(some) > 20
    with scripted_openai() as url:
        before = run(memory(), url, file, records=True, only=some)
    after = run(memory(), NOWHERE, file, only=some)
    assert after.found == before.found
    assert {"passed", "not applicable"} == set(after.found.values())
    assert len(after.found) > 20
    assert {"insert_documents.works", "nth-request.insert", "restart.documents", "ttl.works"} <= after.found.keys()
    assert after.faults == []
    assert KEY not in file.read_text()


def test_no_secret_is_in_the_file(recorded: tuple[Path, Run]) -> None:
    text = recorded[0].read_text()
    assert KEY not in text
    assert "authorization" not in text.lower()
    assert json.loads(text)["checks"].keys() >= set(SOME)


class Politer(broken_inference.Base):
    """It was changed after the recording: its requests have another message."""

    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        more = SystemMessage(content="Be polite in a new way.")
        return await super().chat_completion(model, [more, *messages], *args, **kwargs)


def test_a_provider_that_sends_other_requests_is_found(recorded: tuple[Path, Run]) -> None:
    after = run(inference(Politer), NOWHERE, recorded[0], only=SOME)
    for check in SOME:
        assert "has no answer to POST /v1/chat/completions" in after.found[check]
        assert "Be polite in a new way" in after.found[check]
        assert "record again: --llamastack-record" in after.found[check]


def broken_by(check: str) -> list[type]:
    """The broken inference providers that this check finds."""
    return [
        vars(broken_inference)[broken.name.removeprefix("inference_")]
        for broken in BROKEN
        if broken.check_id == check and broken.name.startswith("inference_")
    ]


def test_a_provider_that_breaks_what_comes_back_is_found(recorded: tuple[Path, Run]) -> None:
    """Its requests are those of the recording, so the check itself finds it."""
    classes = broken_by("streaming.order")
    assert classes
    for cls in classes:
        found = run(inference(cls), NOWHERE, recorded[0], only=("streaming.order",)).found["streaming.order"]
        assert found.startswith("failed: ")
        assert "has no answer" not in found


# ---- stale -----------------------------------------------------------------------------------------------------------


def changed(file: Path, place: Path, **changes: Any) -> Path:
    document = {**json.loads(file.read_text()), **changes}
    place.write_text(json.dumps(document))
    return place


def test_other_versions_are_reported(recorded: tuple[Path, Run], tmp_path: Path) -> None:
    file = changed(recorded[0], tmp_path / "c.json", suite_version="0.9", version="0.0.1")
    after = run(inference(), NOWHERE, file, only=SOME)
    [note] = after.notes
    assert "stale, record again" in note
    assert "with suite 0.9" in note
    assert "0.0.1, and this is 0.1.0" in note
    assert after.faults == []


def test_requests_that_are_not_made_any_more_are_reported(recorded: tuple[Path, Run], tmp_path: Path) -> None:
    checks: dict[str, list[Mapping[str, Any]]] = json.loads(recorded[0].read_text())["checks"]
    more = {"request": {"method": "GET", "target": "/v1/old"}, "answer": {"status": 200, "headers": {}}}
    checks["chat_completion.works"] = [*checks["chat_completion.works"], more]
    after = run(inference(), NOWHERE, changed(recorded[0], tmp_path / "c.json", checks=checks), only=SOME)
    [note] = after.notes
    assert "1 requests were not made, such as chat_completion.works: GET /v1/old" in note
    assert after.found == dict.fromkeys(SOME, "passed")


def test_checks_can_be_recorded_again_by_themselves(recorded: tuple[Path, Run], tmp_path: Path) -> None:
    file = changed(recorded[0], tmp_path / "c.json")
    before = files.read(file)
    with scripted_openai() as url:
        run(inference(), url, file, records=True, only=SOME)
    assert files.read(file).checks.keys() == before.checks.keys()
    assert run(inference(), NOWHERE, file, only=SOME).found == dict.fromkeys(SOME, "passed")


# ---- what cannot be replayed -----------------------------------------------------------------------------------------


def test_what_is_left_out_is_not_applicable(recorded: tuple[Path, Run], tmp_path: Path) -> None:
    file = changed(recorded[0], tmp_path / "c.json", left_out={SOME[1]: "a message is too large"})
    assert run(inference(), NOWHERE, file, only=SOME).found[SOME[1]] == "not applicable"


def test_the_check_that_kills_is_not_applicable(tmp_path: Path) -> None:
    [name] = [name for name, check in checks_of(MemoryConformance) if check.not_replayed]
    model, suite = memory()
    file = tmp_path / "c.json"
    with scripted_openai() as url:
        run((model, suite), url, file, records=True, only=("life.starts",))
    subject = model.subject(NOWHERE)
    session = CassetteSession(subject, file, records=False)
    subject.use_cassette(session)
    with session.open(), subject.open(), pytest.raises(NotApplicable, match="differs each time"):
        getattr(suite(), name)(subject)


def test_a_second_instance_with_another_backend_is_not_applicable(tmp_path: Path) -> None:
    model, suite = inference()
    model.settings = {"second": {"url": "http://127.0.0.1:10/v1"}}
    with scripted_openai() as url:
        found = run((model, suite), url, tmp_path / "c.json", records=True, only=("life.two-instances",)).found
    assert found == {"life.two-instances": "not applicable"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "c.json: cannot be read"),
        ("{}", "this is no cassette"),
        ('{"format": 7}', "it has format 7, but only 1 is known; record it again"),
        ("other", "it was recorded with inference=remote::other"),
    ],
)
def test_a_cassette_that_cannot_be_used(
    recorded: tuple[Path, Run], tmp_path: Path, text: str | None, message: str
) -> None:
    file = tmp_path / "c.json"
    if text == "other":
        changed(recorded[0], file, provider_type="remote::other")
    elif text is not None:
        file.write_text(text)
    with pytest.raises(SubjectError, match=message):
        CassetteSession(inference()[0].subject(NOWHERE), file, records=False)


def test_without_a_url_there_is_nothing_to_record(tmp_path: Path) -> None:
    document = {"providers": {"safety": [{"provider_id": "s", "provider_type": "remote::sample"}]}}
    subject = Subject("safety", "remote::sample", document, discovery=Discovery())
    with pytest.raises(SubjectError, match=r"x-conformance\.backend_url_field"):
        CassetteSession(subject, tmp_path / "c.json", records=True)
