"""`llamastack providers verify`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError

import click

from llamastack.provider.commands import CommandOutput, WrongInputError
from llamastack.stack.discovery import Installed, default_discovery
from llamastack.stack.plugins import Plugins
from llamastack_conformance.configured import SubjectError
from llamastack_conformance.verify.findings import Dependency, Finding
from llamastack_conformance.verify.package_checks import dependencies_of, package_findings
from llamastack_conformance.verify.static_checks import static_findings

__all__ = ["verify"]


@click.command("verify")
@click.argument("provider_type", metavar="TYPE")
@click.option("--api", help="API of the type, if several APIs have it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def verify(output: CommandOutput, provider_type: str, api: str | None, as_json: bool) -> None:
    """Check an installed provider and its package. Nothing is started, and no network is used.

    The exit status is 1 if there is a fault.
    """
    discovery = default_discovery()
    chosen = [each for each in discovery.providers(api) if each.name == provider_type]
    if not chosen:
        known = sorted({each.name for each in discovery.providers(api)})
        where = "" if api is None else f" for API '{api}'"
        raise WrongInputError(
            f"no provider of type '{provider_type}' is installed{where}; there are {', '.join(known)}"
        )
    apis = Plugins(discovery).apis()
    faulty = False
    shown = []
    for installed in chosen:
        found = [*_static(installed), *_of_package(installed, list(apis))]
        required = _required(installed)
        faulty = faulty or any(finding.status == "fault" for finding in found)
        if as_json:
            shown.append(_json(installed, found, required))
        else:
            _show(output, installed, found, required)
    if as_json:
        output.json(shown)
    if faulty:
        raise click.exceptions.Exit(1)


def _static(installed: Installed) -> list[Finding]:
    try:
        return static_findings(installed.api, installed.name)
    except SubjectError as error:
        wanted, mend = "a plugin adds the API of the provider", "install the package that adds the API, or upgrade it"
        return [Finding("package.api", "fault", wanted, str(error), mend)]


def _of_package(installed: Installed, apis: Sequence[str]) -> list[Finding]:
    try:
        return package_findings(installed.package, apis)
    except PackageNotFoundError:
        wanted = "the package has metadata"
        return [Finding("package.metadata", "fault", wanted, "there is none", "install the package with pip")]


def _required(installed: Installed) -> list[Dependency]:
    try:
        return dependencies_of(installed.package)
    except (PackageNotFoundError, ValueError):
        return []  # the finding about it says why


def _show(
    output: CommandOutput, installed: Installed, found: Sequence[Finding], required: Sequence[Dependency]
) -> None:
    output.styled([(f"{installed.api}={installed.name}", "bold"), (f" ({installed.origin})", "")])
    for finding in found:
        output.styled(
            [
                (f"  {finding.status:11} ", "red" if finding.status == "fault" else "dim"),
                (f"{finding.check:24} {finding.wanted}", ""),
            ]
        )
        if finding.got:
            output.say(f"    got:  {finding.got}")
        if finding.mend:
            output.say(f"    mend: {finding.mend}")
    if required:
        rows = [(each.required, each.version or "not installed", each.license or "unknown") for each in required]
        output.table(("REQUIRES", "INSTALLED", "LICENSE"), rows)
    faults = sum(finding.status == "fault" for finding in found)
    counts = f"{len(found)} checks, {faults} faults" if faults else f"{len(found)} checks, no fault"
    output.say(
        f"{counts}. To check it against its backend: pytest --llamastack-provider {installed.api}={installed.name}"
    )


def _json(installed: Installed, found: Sequence[Finding], required: Sequence[Dependency]) -> dict[str, object]:
    return {
        "api": installed.api,
        "provider_type": installed.name,
        "package": installed.package,
        "version": installed.version,
        "findings": [dict(finding.to_json()) for finding in found],
        "requires": [
            {"name": each.name, "required": each.required, "installed": each.version, "license": each.license}
            for each in required
        ],
    }
