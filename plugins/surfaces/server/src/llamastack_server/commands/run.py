"""`llamastack run`: start a stack, show the state of its providers, and serve it until a signal arrives."""

from __future__ import annotations

import click

from llamastack.provider.commands import CommandOutput, WrongInputError
from llamastack.stack import Stack
from llamastack_server.collected_routes import check_routes
from llamastack_server.commands.run_stack import run_stack, set_up_log
from llamastack_server.settings import ServerConfig
from llamastack_server.uvicorn_server import BindError, bind
from llamastack_server.worker_checks import check_workers


@click.command()
@click.argument("config", default="starter")
@click.option("--host", help="Address to listen on; by default the config's, else 127.0.0.1.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="TCP port, 0 for a free one; by default the config's, else 8321."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that serve together; by default the config's, else 1. A good value is the number of cores.",
)
@click.option(
    "--start-wait",
    "start_wait_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait for slow providers before requests are accepted; by default the config's, else 1.25.",
)
@click.option("--reload", "reloads", is_flag=True, help="Start again when the config or a source file changes.")
@click.pass_obj
def run(
    output: CommandOutput,
    config: str,
    host: str | None,
    port: int | None,
    workers: int | None,
    start_wait_s: float | None,
    reloads: bool,
) -> None:
    """Start the stack of CONFIG and serve it over HTTP.

    CONFIG is a YAML file or the name of an installed run config (see `llamastack distributions list`).
    """
    set_up_log()
    report = output.progress()
    stack = Stack.from_config(config, on_progress=report)
    settings = stack.config.section("server", ServerConfig)
    count = settings.workers if workers is None else workers
    if reloads and count > 1:
        raise click.UsageError(f"--reload serves with one process, not with {count} workers; add --workers 1")
    check_workers(stack, count)
    check_routes(stack)
    try:
        listening = bind(host or settings.host, settings.port if port is None else port)
    except BindError as error:
        written = ("server", "port")
        if port is None and written in stack.config.lines:
            raise stack.config.error(written, str(error)) from None
        raise WrongInputError(str(error)) from None
    if reloads:
        from llamastack_server.commands.reload import run_reloading

        run_reloading(config, listening, output, start_wait_s)
    elif count > 1:
        from llamastack_server.commands.workers import run_workers

        run_workers(stack.config, listening, count, output, start_wait_s)
    else:
        run_stack(stack, listening, output, report, start_wait_s=start_wait_s)
