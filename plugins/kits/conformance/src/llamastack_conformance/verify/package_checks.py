"""Checks of an installed distribution: its files, its dependencies, its license and its entry points.

Sources: https://packaging.python.org/specifications/recording-installed-packages/ (RECORD, `direct_url.json`) and
https://packaging.python.org/specifications/core-metadata/.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from llamastack.stack.discovery import (
    PLUGIN_GROUP,
    PROVIDER_GROUP_PREFIX,
    REQUIRED_PLUGIN_GROUP,
    RUN_CONFIG_GROUP,
    STORE_GROUP,
)
from llamastack_conformance.installed_suites import SUITE_GROUP
from llamastack_conformance.verify.findings import Dependency, Finding

_TEMPLATE_GROUP = "llamastack.provider_templates"  # read by llamastack-provider-template
_GROUPS = (PLUGIN_GROUP, REQUIRED_PLUGIN_GROUP, RUN_CONFIG_GROUP, STORE_GROUP, SUITE_GROUP, _TEMPLATE_GROUP)
_MOST_NAMED = 5
_LONGEST_LICENSE = 40  # older metadata has the whole text
_CLASSIFIER = "License :: "


def package_findings(package: str, apis: Collection[str]) -> list[Finding]:
    """The findings about a distribution. apis: the names of all APIs. Raises PackageNotFoundError."""
    found = distribution(package)
    return [_files(found), _license(found), _requirements(found), _entry_points(found, apis)]


def dependencies_of(package: str) -> list[Dependency]:
    """What a distribution requires on this platform, without its extras. Raises PackageNotFoundError."""
    return sorted(_dependencies(distribution(package)), key=lambda each: each.name.lower())


# ---- files -----------------------------------------------------------------------------------------------------------


def _files(found: Distribution) -> Finding:
    wanted = "the installed files are those of the wheel (RECORD)"
    if _is_editable(found):
        return Finding("package.files", "not checked", wanted, "the package is installed in place (editable)")
    record = found.read_text("RECORD")
    if record is None:
        return Finding("package.files", "fault", wanted, "there is no RECORD", "install the package with pip")
    faults: list[str] = []
    for name, digest, *_ in (row for row in csv.reader(record.splitlines()) if len(row) > 1):
        path, (mode, _, value) = Path(str(found.locate_file(name))), digest.partition("=")
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif value and value != _digest(path, mode):
            faults.append(f"{name} was changed")
    if not faults:
        return Finding("package.files", "ok", wanted)
    return Finding("package.files", "fault", wanted, _some(faults), "install it again: pip install --force-reinstall")


def _is_editable(found: Distribution) -> bool:
    try:
        direct = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    about = direct.get("dir_info") if isinstance(direct, dict) else None
    return isinstance(about, dict) and about.get("editable") is True


def _digest(path: Path, mode: str) -> str:
    """As RECORD has it: base64 without padding. A kind of hash that is not known here gives ""."""
    if mode not in hashlib.algorithms_guaranteed:
        return ""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, mode).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _some(faults: list[str]) -> str:
    more = len(faults) - _MOST_NAMED
    return "; ".join(faults[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


# ---- license and dependencies ----------------------------------------------------------------------------------------


def _license(found: Distribution) -> Finding:
    wanted = "the package names its license"
    if _license_of(found) is not None:
        return Finding("package.license", "ok", wanted)
    mend = 'write `license = "MIT"`, or another SPDX expression, in [project] of pyproject.toml'
    return Finding("package.license", "fault", wanted, "its metadata names none", mend)


def _license_of(found: Distribution) -> str | None:
    said = {name: found.metadata.get_all(name) or [] for name in ("License-Expression", "Classifier", "License")}
    named = [each.rpartition(" :: ")[2] for each in said["Classifier"] if each.startswith(_CLASSIFIER)]
    texts = [each.strip().partition("\n")[0][:_LONGEST_LICENSE] for each in said["License"]]
    return next(filter(None, [*said["License-Expression"], " or ".join(named), *texts]), None)


def _requirements(found: Distribution) -> Finding:
    wanted = "what the package requires is installed, in versions that fit"
    try:
        faults = [
            f"{each.required} is required, and {'nothing' if each.version is None else each.version} is installed"
            for each in _dependencies(found)
            if not each.fits
        ]
    except InvalidRequirement as error:
        return Finding("package.dependencies", "fault", wanted, str(error), "correct `dependencies` in pyproject.toml")
    if not faults:
        return Finding("package.dependencies", "ok", wanted)
    return Finding("package.dependencies", "fault", wanted, _some(faults), "pip install what is missing")


def _dependencies(found: Distribution) -> Iterator[Dependency]:
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        required = str(requirement).partition(";")[0].strip()
        try:
            there = distribution(requirement.name)
        except PackageNotFoundError:
            yield Dependency(requirement.name, required, None, None, fits=False)
            continue
        fits = requirement.specifier.contains(there.version, prereleases=True)
        yield Dependency(requirement.name, required, there.version, _license_of(there), fits)


# ---- entry points ----------------------------------------------------------------------------------------------------


def _entry_points(found: Distribution, apis: Collection[str]) -> Finding:
    wanted = "each entry point is in a group that llamastack reads"
    groups = [*_GROUPS, *(f"{PROVIDER_GROUP_PREFIX}{api}" for api in apis)]
    faults, missing = list[str](), list[str]()
    for group in sorted({each.group for each in found.entry_points}):
        if not group.partition(".")[0].replace("-", "_").startswith(("llamastack", "llama_stack")) or group in groups:
            continue
        api = group.removeprefix(PROVIDER_GROUP_PREFIX)
        if api != group and api.isidentifier():
            missing.append(api)
        else:
            near = get_close_matches(group, groups, n=1, cutoff=0.6)
            faults.append(f"nothing reads '{group}'" + (f"; is it '{near[0]}'?" if near else ""))
    if not faults and not missing:
        return Finding("package.entry-points", "ok", wanted)
    mend = [f"correct the group in pyproject.toml; there are {', '.join(groups)}"] if faults else []
    for api in missing:
        near = get_close_matches(api, apis, n=1, cutoff=0.8)
        faults.append(f"no installed plugin adds API '{api}'" + (f"; is it '{near[0]}'?" if near else ""))
        mend.append(f"install the package that adds API '{api}'")
    return Finding("package.entry-points", "fault", wanted, _some(faults), "; ".join(mend))
