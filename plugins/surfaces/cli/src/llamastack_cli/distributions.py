"""`llamastack distributions` and `llamastack plugins`: run configs and plugins of the installed packages."""

from __future__ import annotations

import click

from llamastack.stack.discovery import RUN_CONFIG_GROUP, Installed, default_discovery
from llamastack_cli.broken_entry_points import fault_of
from llamastack_cli.output import show_json
from llamastack_cli.providers import show_installed


@click.group()
def distributions() -> None:
    """Show the installed run configs: what `llamastack run NAME` takes."""


@distributions.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_distributions(as_json: bool) -> None:
    """List the installed run configs."""
    found = default_discovery().group(RUN_CONFIG_GROUP)
    _show(found, [_fault(installed) for installed in found], as_json, "no run config is installed")


@click.group()
def plugins() -> None:
    """Show the installed plugins: packages that add APIs, commands or middleware, or receive events."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(as_json: bool) -> None:
    """List the installed plugins. This loads all that are not disabled."""
    found = default_discovery().plugins()
    causes: dict[Installed, str] = {}
    if found:
        from llamastack_cli.server_connection import installed_plugins

        hooks = installed_plugins()
        hooks.apis()  # a plugin may be left out because of the APIs that it adds
        causes = {broken.installed: f"broken: {broken.cause}" for broken in hooks.broken}
    _show(found, [causes.get(installed) or _fault(installed) for installed in found], as_json, "no plugin is installed")


def _fault(installed: Installed) -> str | None:
    if installed.disabled:
        return "disabled by LLAMASTACK_DISABLE_PLUGINS"
    broken = fault_of(installed)
    return None if broken is None else f"broken: {broken}"


def _show(found: list[Installed], faults: list[str | None], as_json: bool, none: str) -> None:
    if as_json:
        show_json(
            [
                {
                    "name": installed.name,
                    "package": installed.package,
                    "version": installed.version,
                    "status": "faulty" if fault else "ok",
                    "reason": fault,
                }
                for installed, fault in zip(found, faults, strict=True)
            ]
        )
    elif found:
        show_installed(found, faults, ("NAME",))
    else:
        click.echo(none, err=True)
