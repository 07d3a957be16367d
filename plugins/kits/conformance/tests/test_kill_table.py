"""The suite proves itself: every check finds the providers that were broken for it, and nothing in sound ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("kill_table")  # all against one backend
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the broken providers are modules that specs name by dotted path

import broken_agent_turns  # noqa: E402, F401
import broken_agents  # noqa: E402, F401
import broken_at_faults  # noqa: E402
import broken_banks  # noqa: E402, F401
import broken_declarations  # noqa: E402, F401 - each of these modules registers its providers
import broken_forms  # noqa: E402, F401
import broken_forwarding  # noqa: E402, F401
import broken_inference  # noqa: E402
import broken_lifecycle  # noqa: E402, F401
import broken_limits  # noqa: E402, F401
import broken_memory  # noqa: E402
import broken_memory_concurrency  # noqa: E402
import broken_memory_modes  # noqa: E402, F401
import broken_memory_names  # noqa: E402, F401
import broken_memory_queries  # noqa: E402, F401
import broken_others  # noqa: E402
import broken_overlap  # noqa: E402, F401
import broken_prompts  # noqa: E402, F401
import broken_received  # noqa: E402, F401
import broken_received_edges  # noqa: E402, F401
import broken_requests  # noqa: E402
import broken_restarts  # noqa: E402
import broken_shields  # noqa: E402
import broken_statuses  # noqa: E402, F401
import broken_telemetry  # noqa: E402, F401
import broken_vectors  # noqa: E402, F401
import broken_wholes  # noqa: E402, F401
import broken_writes  # noqa: E402, F401
from breaking import BROKEN, Broken, spec_of  # noqa: E402
from broken_packages import PACKAGES, SOUND, Package  # noqa: E402
from scripted_memory import REST_MEMORY, RestMemory  # noqa: E402
from scripted_openai import scripted_openai  # noqa: E402

import llamastack_conformance  # noqa: E402
from llamastack.stack.discovery import Discovery  # noqa: E402
from llamastack_conformance.catalogue import catalogue  # noqa: E402
from llamastack_conformance.checks import Check, CheckFailure, checks_of  # noqa: E402
from llamastack_conformance.provider_under_test import Subject  # noqa: E402
from llamastack_conformance.store_under_test import STORE  # noqa: E402
from llamastack_conformance.suites.inference import InferenceConformance  # noqa: E402
from llamastack_provider_openai import OPENAI  # noqa: E402
from llamastack_provider_sample import AGENTS, MEMORY, SAFETY, TELEMETRY  # noqa: E402

SOUND_PROVIDERS = {
    "inference": (OPENAI, broken_inference.made_by(broken_inference.Base), "inference_NeverStarts"),
    "safety": (SAFETY, broken_others.made_from(SAFETY)(broken_others.SampleSafety), "safety_MindsNothing"),
    "memory": (MEMORY, broken_others.made_from(MEMORY)(broken_others.SampleMemory), "memory_DeletesAll"),
    "memory of vectors": (
        broken_memory.VECTORS,
        broken_memory.make_vectors(broken_memory.VectorsInMemory),
        "memory_CountsOne",
    ),
    "telemetry": (
        TELEMETRY,
        broken_others.made_from(TELEMETRY)(broken_others.SampleTelemetry),
        "telemetry_LosesTheEnd",
    ),
    "agents": (AGENTS, broken_others.made_from(AGENTS)(broken_others.SampleAgents), "agents_NeverEnds"),
}


SOUND_OVER_HTTP = Broken(
    "",
    "memory",
    "sound_over_http",
    spec_of(REST_MEMORY, "sound_over_http", broken_requests.made_by(RestMemory)),
    {"url": "{url}/memory/{name}", "api_key": "sk-operator-1234"},
    {"objects": [broken_requests.BANK]},
)


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with scripted_openai() as url:
        yield url


@pytest.fixture(autouse=True)
def sockets_are_closed() -> Iterator[None]:
    """What a broken provider leaves open, for the tests after it."""
    yield
    while broken_at_faults.LeavesASocket.kept:
        broken_at_faults.LeavesASocket.kept.pop().close()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: f"{b.check_id}-{b.name.partition('_')[2]}")
def test_what_is_broken_is_found(broken: Broken, backend: str, record_property: pytest.RecordProperty) -> None:
    outcome = broken.outcome(backend)
    record_property("kill", f"{broken.check_id:28} {broken.name:42} {outcome.splitlines()[0][:100]}")
    assert outcome.startswith("failed: "), f"{broken.check_id} does not find {broken.name}: {outcome}"
    # A broken provider that no longer fits the kit fails everywhere, and proves nothing.
    assert broken.api != "memory" or "InternalError" not in outcome, f"{broken.name} crashes: {outcome}"
    assert not broken.check_id.startswith(BY_USE) or "the provider is down" not in outcome, outcome


BY_USE = ("nth-request.", "embedding.")
"""Checks of a provider that runs: one that does not start proves nothing."""
ON_DISK = {"static.import", "static.import-time", "static.typed"}
"""Checks of a package: `test_a_sound_package_passes` has one."""


def _applies(check: Check, broken: Broken) -> bool:
    if check.id in ON_DISK:
        return False
    return check.capability is None or broken.spec.capabilities.holds(check.capability) is check.declared


@pytest.mark.parametrize("what", SOUND_PROVIDERS)
def test_a_sound_provider_passes(what: str, backend: str) -> None:
    """Every check that applies; also that of what it hides, where it really lacks it."""
    spec, factory, like = SOUND_PROVIDERS[what]
    api = str(spec.api)
    model = next(b for b in BROKEN if b.name == like)
    _passes(
        Broken(
            "",
            api,
            f"sound_{api}",
            spec_of(spec, f"sound_{api}", factory),
            model.config,
            model.settings,
            model.providers,
        ),
        backend,
    )


def test_a_sound_memory_provider_over_http_passes(backend: str) -> None:
    """With a backend whose connection can be broken, which the sample's has not."""
    _passes(SOUND_OVER_HTTP, backend)


@pytest.mark.parametrize(
    "check_id", ["failure.goes-down", "nth-request.call", "nth-request.list", "nth-request.unregister"]
)
def test_a_provider_that_leaves_errors_of_httpx_to_the_stack_passes(check_id: str, backend: str) -> None:
    factory = broken_requests.made_by(broken_requests.LetsErrorsOfHttpxThrough)
    made = spec_of(REST_MEMORY, "sound_httpx", factory)
    sound = Broken(check_id, "memory", "sound_httpx", made, SOUND_OVER_HTTP.config, SOUND_OVER_HTTP.settings)
    assert sound.outcome(backend) == "passed"


def _passes(sound: Broken, backend: str) -> None:
    outcomes = _outcomes(sound, backend)
    failed = {check_id: outcome for check_id, outcome in outcomes.items() if outcome.startswith("failed")}
    assert not failed
    assert "passed" in outcomes.values()


def _outcomes(sound: Broken, backend: str) -> dict[str, str]:
    """The outcome of every check that applies, by id."""
    suite = getattr(llamastack_conformance, llamastack_conformance.SUITES[sound.api])
    outcomes = {}
    for _, check in checks_of(suite):
        if _applies(check, sound):
            sound.check_id = check.id
            outcomes[check.id] = sound.outcome(backend)
    return outcomes


def test_a_sound_provider_that_keeps_its_data_in_a_file_passes(backend: str) -> None:
    factory = broken_restarts.made_with_file(broken_restarts.FileMemory)
    settings = {"objects": [broken_others.BANK]}
    sound = Broken(
        "", "memory", "sound_file", spec_of(broken_restarts.SHARED_MEMORY, "sound_file", factory), settings=settings
    )
    outcomes = _outcomes(sound, backend)
    assert not {check_id: outcome for check_id, outcome in outcomes.items() if outcome.startswith("failed")}
    restarted = {check_id: outcome for check_id, outcome in outcomes.items() if check_id.startswith("restart.")}
    assert restarted.pop("restart.killed").startswith("not applicable")  # see IN_OTHER_PROCESSES
    assert set(restarted.values()) == {"passed"}, restarted


@pytest.mark.parametrize(
    "check_id", ["form.errors", "form.fields", "form.reply", "form.stream", "forwarded.reply", "forwarded.stream"]
)
def test_a_backend_that_limits_tokens_by_the_newer_name_passes(check_id: str, backend: str) -> None:
    config = {"url": "{url}", "api_key": "sk-operator-1234", "max_tokens_field": "max_completion_tokens"}
    assert Broken(check_id, "inference", "newer_name", OPENAI, config).outcome(backend) == "passed"


def test_a_shield_that_asks_a_model_passes(backend: str) -> None:
    sound = spec_of(broken_shields.ASKING, "sound_asking", broken_shields.make_asking(broken_shields.AsksAModel))
    made = Broken(
        "run_shield.model-fails",
        "safety",
        "asking",
        sound,
        settings=broken_shields.SETTINGS,
        providers=broken_others.SAMPLE_MODEL,
    )
    assert made.outcome(backend) == "passed"


@pytest.mark.parametrize("check_id", ["stress.connections", "stress.overlap", "stress.parallel-calls"])
def test_a_memory_provider_with_a_backend_passes(check_id: str, backend: str) -> None:
    spec, factory = broken_memory_concurrency.BACKED, broken_memory.make_vectors(broken_memory_concurrency.AsksABackend)
    sound = spec_of(spec, "sound_with_backend", factory)
    settings = {"objects": [broken_others.BANK]}
    assert Broken(check_id, "memory", "with_backend", sound, {"url": "{url}"}, settings).outcome(backend) == "passed"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def _check(package: Package, check_id: str) -> str:
    document = {"providers": {"inference": [{"provider_id": "p", "provider_type": f"remote::{package.name}"}]}}
    subject = Subject("inference", f"remote::{package.name}", document, discovery=Discovery())
    method = next(name for name, check in checks_of(InferenceConformance) if check.id == check_id)
    try:
        with subject.open():
            getattr(InferenceConformance(), method)(subject)
    except CheckFailure as failure:
        return f"failed: {failure.got}"
    finally:
        sys.modules.pop(package.module, None)
    return "passed"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: f"{p.check_id}-{p.name}")
def test_a_broken_package_is_found(package: Package, installed: Path, record_property: pytest.RecordProperty) -> None:
    package.write(installed)
    outcome = _check(package, package.check_id)
    record_property("kill", f"{package.check_id:28} {package.name:42} {outcome.splitlines()[0][:100]}")
    assert outcome.startswith("failed: "), outcome


def test_a_sound_package_passes(installed: Path) -> None:
    SOUND.write(installed)
    for check_id in {package.check_id for package in PACKAGES}:
        assert _check(SOUND, check_id) == "passed", check_id


IN_OTHER_PROCESSES = {"restart.killed"}
"""Its broken providers are in `test_killed_providers`: another process must find them."""


def test_every_check_has_something_to_find() -> None:
    killed = {broken.check_id for broken in BROKEN} | {package.check_id for package in PACKAGES} | IN_OTHER_PROCESSES
    assert killed == {check.id for check, apis in catalogue() if apis != (STORE,)}
