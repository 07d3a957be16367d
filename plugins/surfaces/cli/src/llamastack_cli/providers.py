"""`llamastack providers`: the installed provider types. Listing imports no provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from llamastack.provider.commands import CliError, WrongInputError
from llamastack.stack.discovery import PROVIDER_GROUP_PREFIX, Discovery, DiscoveryError, Installed, default_discovery
from llamastack_cli.broken_entry_points import fault_of
from llamastack_cli.config_table import config_table
from llamastack_cli.output import say, show_json, show_table

if TYPE_CHECKING:
    from llamastack.provider.spec import ProviderSpec
    from llamastack_cli.fields import ConfigField


@click.group()
def providers() -> None:
    """Show the installed providers."""


providers.add_command(config_table)


@providers.command("list")
@click.option("--api", help="Only providers of this API.")
@click.option("--check", is_flag=True, help="Import each provider's spec and check it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_providers(api: str | None, check: bool, as_json: bool) -> None:
    """List the installed providers, by API."""
    discovery = default_discovery()
    found = discovery.providers(api)
    if api is not None and not found:
        _require_api(api)
    apis = _known_apis() if check else ()
    faults = [_fault(installed, found, discovery if check else None, apis) for installed in found]
    if as_json:
        show_json(
            [
                {
                    "api": installed.api,
                    "provider_type": installed.name,
                    "package": installed.package,
                    "version": installed.version,
                    "status": "faulty" if fault else "ok",
                    "reason": fault,
                }
                for installed, fault in zip(found, faults, strict=True)
            ]
        )
    elif not found:
        click.echo(f"no provider is installed{f' for API {api!r}' if api else ''}", err=True)
    else:
        show_installed(found, faults, ("API", "PROVIDER TYPE"), always_status=check)
    if check and any(faults):
        raise click.exceptions.Exit(1)


def show_installed(
    found: Sequence[Installed],
    faults: Sequence[str | None],
    headers: tuple[str, ...],
    *,
    always_status: bool = False,
) -> None:
    """A table of installed entry points, with a status column if any is faulty."""
    with_status = always_status or any(faults)
    rows = []
    for installed, fault in zip(found, faults, strict=True):
        row = [installed.api] if len(headers) > 1 else []
        row += [installed.name, installed.package, installed.version]
        rows.append(row + ([fault or "ok"] if with_status else []))
    show_table([*headers, "PACKAGE", "VERSION", *(["STATUS"] if with_status else [])], rows)


def _known_apis() -> list[str]:
    from llamastack_cli.server_connection import installed_plugins

    return [name for name, definition in installed_plugins().apis().items() if not definition.implemented_by_stack]


def _require_api(api: str) -> None:
    known = _known_apis()
    if api not in known:
        raise WrongInputError(f"--api: there is no API '{api}' for providers; allowed: {', '.join(known)}")


def _fault(
    installed: Installed, all_of_them: Sequence[Installed], loads: Discovery | None, apis: Sequence[str]
) -> str | None:
    if installed.disabled:
        return "disabled by LLAMASTACK_DISABLE_PLUGINS"
    fault = fault_of(installed)
    if fault is None and loads is not None:
        if missing_api := _missing_api(installed, apis):
            return f"broken: {missing_api}"
        try:
            loads.load_spec(installed)
        except DiscoveryError as error:
            fault = str(error)
    if fault is not None:
        return f"broken: {fault}"
    if installed.missing_extra is not None:
        return f"incomplete: {installed.missing_extra}"
    others = [
        other.origin
        for other in all_of_them
        if (other.group, other.name) == (installed.group, installed.name) and other is not installed
    ]
    return f"also brought by {', '.join(others)}: choose with 'package:'" if others else None


def _missing_api(installed: Installed, apis: Sequence[str]) -> str | None:
    return None if installed.api in apis else f"no installed plugin adds API '{installed.api}'"


# ---- show ------------------------------------------------------------------------------------------------------------


@providers.command("show")
@click.argument("provider_type", metavar="TYPE")
@click.option("--api", help="API of the type, if several APIs have it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_provider(provider_type: str, api: str | None, as_json: bool) -> None:
    """Show a provider type: its description, its capabilities, and the fields of its config."""
    discovery = default_discovery()
    found = [installed for installed in discovery.providers(api) if installed.name == provider_type]
    if not found:
        if api is not None and not discovery.providers(api):
            _require_api(api)
        raise WrongInputError(_unknown(provider_type, api, discovery))
    described = [_described(installed, discovery.load_spec(installed)) for installed in found]
    if as_json:
        show_json(described)
        return
    for place, provider in enumerate(described):
        if place:
            click.echo()
        _show(provider)


def _unknown(provider_type: str, api: str | None, discovery: Discovery) -> str:
    if api is not None:
        try:
            discovery.find(f"{PROVIDER_GROUP_PREFIX}{api}", provider_type)
        except DiscoveryError as error:
            return str(error)
    from difflib import get_close_matches

    names = list(dict.fromkeys(installed.name for installed in discovery.providers()))
    near = get_close_matches(provider_type, names, n=1, cutoff=0.7)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"'{provider_type}' is not installed.{hint} Installed: {', '.join(names) or 'none'}."


def _described(installed: Installed, spec: ProviderSpec) -> dict[str, Any]:
    from llamastack.provider.import_path import load_dotted
    from llamastack_cli.fields import fields_of

    missing = "; ".join(filter(None, (_missing_api(installed, _known_apis()), installed.missing_extra)))
    try:
        config_fields = fields_of(spec.load_config_class())
        validator = spec.provider_data_validator
        data_fields = None if validator is None else fields_of(load_dotted(validator))
    except Exception as error:  # a module of the provider may raise anything
        if isinstance(error, ImportError) and installed.missing_extra is not None:
            return _facts(installed, spec, missing, None, None)
        raise CliError(f"'{installed.name}' ({installed.origin}) cannot be loaded: {error}") from error
    return _facts(installed, spec, missing, config_fields, data_fields)


def _facts(
    installed: Installed,
    spec: ProviderSpec,
    missing: str,
    config: list[ConfigField] | None,
    data: list[ConfigField] | None,
) -> dict[str, Any]:
    """config, data: the fields of the config and of provider data; None: packages of an extra are missing."""
    return {
        "api": spec.api,
        "provider_type": spec.provider_type,
        "description": spec.description,
        "kind": spec.kind,
        "package": installed.package,
        "version": installed.version,
        "missing": missing or None,
        "api_dependencies": list(spec.api_dependencies),
        "optional_api_dependencies": list(spec.optional_api_dependencies),
        "capabilities": dict(spec.capabilities),
        "config": None if config is None else [field.to_json() for field in config],
        "provider_data": None if data is None else [field.to_json() for field in data],
    }


def _show(provider: dict[str, Any]) -> None:
    say(f"{provider['provider_type']} for API {provider['api']}: {provider['description']}")
    facts = [
        ("kind", provider["kind"]),
        ("package", f"{provider['package']} {provider['version']}"),
        ("missing", provider["missing"]),
        ("needs APIs", ", ".join(provider["api_dependencies"])),
        ("uses APIs", ", ".join(provider["optional_api_dependencies"])),
        *((name.replace("_", " "), support) for name, support in provider["capabilities"].items()),
    ]
    show_table((), [fact for fact in facts if fact[1]])
    if provider["config"] is not None:
        _show_fields("Config", provider["config"])
    if provider["provider_data"] is not None:
        _show_fields("Provider data (X-LlamaStack-ProviderData)", provider["provider_data"])


def _show_fields(title: str, fields: list[dict[str, Any]]) -> None:
    click.echo()
    if not fields:
        click.echo(f"{title}: no fields")
        return
    show_table(
        ("FIELD", "TYPE", "DEFAULT", "REQUIRED", "DESCRIPTION"),
        [(f["name"], f["type"], f["default"], "yes" if f["required"] else "no", f["description"]) for f in fields],
        title=title,
    )
