"""A command of its own: `llamastack share`. It is imported when somebody uses it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import anyio
import click

from llamastack import LlamaStackClient
from llamastack.api.files import File
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.commands import CommandOutput
from llamastack_files_example.api import APIS
from llamastack_files_example.shared_files import PREFIX


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--folder", default="inbox", show_default=True, help="Where the file goes.")
@click.option("--media-type", default="text/plain", show_default=True, help="What the file holds.")
@click.option("--url", envvar="LLAMASTACK_URL", default="http://127.0.0.1:8321", show_default=True, help="The server.")
@click.pass_obj
def share(output: CommandOutput, path: Path, folder: str, media_type: str, url: str) -> None:
    """Upload the file PATH and print an address that shows it."""

    async def upload() -> str:
        key = os.environ.get("LLAMASTACK_API_KEY")
        async with LlamaStackClient(url, api_key=key, apis=[*BUILTIN_APIS, *APIS]) as client:
            file = await File.from_path(path, media_type=media_type)
            return str((await client.files.upload_file(folder=folder, file=file)).id)

    output.say(f"{url.rstrip('/')}{PREFIX}{quote(folder, safe='')}/{anyio.run(upload)}")
