"""What is installed is found without importing it; what is wrong with it is said by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import scripted_fake
from installed_fakes import SCRIPTED, entry_points_in, install

from llamastack.stack.discovery import Discovery, DiscoveryError

INFERENCE = "llamastack.providers.inference"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


def only(site: Path, disabled: list[str] | None = None) -> Discovery:
    return Discovery(entry_points_in(site, real=False), disabled=disabled or [])


def test_lists_distribution_and_version(site: Path) -> None:
    install(site, "llamastack-provider-one", {INFERENCE: {"one": "m:A"}}, version="0.3.1")
    (found,) = only(site).providers()
    assert (found.api, found.name, found.package, found.version) == (
        "inference",
        "one",
        "llamastack-provider-one",
        "0.3.1",
    )


def test_other_groups_and_apis_are_left_out(site: Path) -> None:
    install(site, "thing", {"console_scripts": {"x": "m:main"}, "llamastack.providers.safety": {"s": "m:S"}})
    assert [p.name for p in only(site).providers()] == ["s"]
    assert only(site).providers("inference") == []


def test_listing_imports_no_provider_module(site: Path) -> None:
    install(site, "llamastack-provider-scripted", SCRIPTED)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from llamastack.stack.discovery import Discovery;"
        "names = [i.name for i in Discovery().providers()]; assert 'scripted' in names;"
        "print([m for m in sys.modules if m.startswith(('scripted_fake', 'llamastack_provider'))])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(site)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_type_names_the_nearest_and_what_is_installed(site: Path) -> None:
    install(site, "llamastack-provider-tgi", {INFERENCE: {"remote::tgi": "m:T"}}, version="0.3.1")
    with pytest.raises(DiscoveryError) as caught:
        only(site).find(INFERENCE, "remote::tgl")
    assert str(caught.value) == (
        "'remote::tgl' is not installed for API 'inference'. Did you mean 'remote::tgi' "
        "(llamastack-provider-tgi 0.3.1)? Installed: remote::tgi."
    )


def test_known_package_is_proposed(site: Path) -> None:
    with pytest.raises(DiscoveryError, match=r"Try: pip install llamastack-provider-qdrant\. Installed: none\."):
        only(site).find("llamastack.providers.memory", "remote::qdrant")


def test_two_claims_are_both_listed_and_only_using_them_fails(site: Path) -> None:
    for name in ("acme-one", "acme-two"):
        install(site, name, {INFERENCE: {"remote::acme": "scripted_fake:SPEC"}})
    found = only(site)
    assert [p.package for p in found.providers()] == ["acme-one", "acme-two"]
    with pytest.raises(DiscoveryError, match=r"claimed by acme-one 1\.2\.3 and acme-two 1\.2\.3"):
        found.find(INFERENCE, "remote::acme")
    assert found.find(INFERENCE, "remote::acme", "Acme_Two").package == "acme-two"
    with pytest.raises(DiscoveryError, match="not brought by package 'acme-three' but by acme-one"):
        found.find(INFERENCE, "remote::acme", "acme-three")


@pytest.mark.parametrize("disabled", ["llamastack_provider.scripted", "scripted"])
def test_disabled_by_distribution_or_name(site: Path, disabled: str) -> None:
    install(site, "llamastack-provider-scripted", {INFERENCE: {"scripted": "scripted_fake:SPEC"}})
    found = only(site, disabled=[disabled])
    assert found.providers()[0].disabled
    with pytest.raises(DiscoveryError, match="disabled by LLAMASTACK_DISABLE_PLUGINS"):
        found.load_spec(found.find(INFERENCE, "scripted"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("not-a-spec", "is a str, not a ProviderSpec"),
        ("other-api", r"is a spec of \(safety, other-api\), not of \(inference, other-api\)"),
        ("future", r"needs API version >=2\.0"),
        ("gone", "ModuleNotFoundError: No module named 'package_that_is_gone'"),
    ],
)
def test_a_broken_spec_says_who_and_why(site: Path, name: str, says: str) -> None:
    install(site, "llamastack-provider-scripted", SCRIPTED)
    found = only(site)
    with pytest.raises(DiscoveryError, match=says) as caught:
        found.load_spec(found.find(INFERENCE, name))
    assert "llamastack-provider-scripted 1.2.3, entry point" in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "upgrade"),
    [
        (">=2.0", "llamastack"),
        (">1.0,<2", "llamastack"),
        ("==1.3", "llamastack"),
        ("<1.0", "acme-provider"),
        (">=0.8,<1", "acme-provider"),
        ("!=1.0", "llamastack"),
    ],
)
def test_another_version_of_the_api_says_both_and_what_to_upgrade(
    site: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, upgrade: str
) -> None:
    monkeypatch.setattr(scripted_fake, "FUTURE", replace(scripted_fake.FUTURE, api_version=wanted))
    install(site, "acme-provider", {INFERENCE: {"future": "scripted_fake:FUTURE"}})
    found = only(site)
    with pytest.raises(DiscoveryError) as refused:
        found.load_spec(found.find(INFERENCE, "future"))
    assert str(refused.value) == (
        "'future' (acme-provider 1.2.3, entry point scripted_fake:FUTURE) needs API version "
        f"{wanted}, and this llamastack has 1.0: pip install -U {upgrade}"
    )


def test_an_entry_point_may_be_a_whole_module(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "counter", {"llamastack.plugins": {"counter": "counter_of_this_test"}, INFERENCE: {"odd": "json"}})
    (site / "counter_of_this_test.py").write_text("COUNT = 1\n")
    monkeypatch.syspath_prepend(site)
    found = only(site)
    assert found.find("llamastack.plugins", "counter").load().COUNT == 1
    with pytest.raises(DiscoveryError, match="is a module, not a ProviderSpec"):
        found.load_spec(found.find(INFERENCE, "odd"))


def test_refresh_sees_what_was_installed_since(site: Path) -> None:
    site.mkdir()
    found = only(site)
    assert found.providers() == []
    install(site, "late", {INFERENCE: {"late": "m:L"}})
    assert found.providers() == []
    found.refresh()
    assert [p.name for p in found.providers()] == ["late"]
