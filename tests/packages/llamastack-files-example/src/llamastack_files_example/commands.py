"""The command `llamastack share`. It is imported when it is used."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from llamastack import LlamaStackClient
from llamastack.api.files import File
from llamastack.provider.commands import CommandOutput
from llamastack_files_example.shared_files import PREFIX


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--folder", default="inbox", show_default=True, help="Folder for the file.")
@click.option("--media-type", default="text/plain", show_default=True, help="Media type of the file.")
@click.pass_obj
def share(output: CommandOutput, path: Path, folder: str, media_type: str) -> None:
    """Upload the file PATH and print an address that shows it."""

    async def upload(client: LlamaStackClient) -> str:
        file = await File.from_path(path, media_type=media_type)
        stored = await client.files.upload_file(folder=folder, file=file)
        return f"{client.base_url}{PREFIX}{quote(folder, safe='')}/{stored.id}"

    output.say(output.call_server(upload))
