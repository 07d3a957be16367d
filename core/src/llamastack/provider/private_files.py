"""Files and folders that nobody but their owner can read (0600 and 0700), whatever the umask of the process is."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

_LOGGER = logging.getLogger("llamastack.provider")
_FILE = 0o600
_FOLDER = 0o700


def private_folder(folder: Path, *, tighten: bool = True) -> Path:
    """Make `folder`, with the folders above it that are missing, for its owner alone.

    tighten: whether one that is there is closed to others, too; not where it may hold what is not ours.
    Raises OSError when it cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=_FOLDER, exist_ok=True)
        make_private(each)
    if tighten and folder not in missing:
        make_private(folder)
    return folder


def private_file(file: Path) -> Path:
    """Make an empty file that only its owner can read, or make an existing file so. Raises OSError."""
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, _FILE))
    make_private(file)
    return file


def make_private(path: Path) -> None:
    """Remove all rights of other users. Ignores a missing path, and warns about a path of another owner."""
    try:
        mode = path.stat().st_mode
        wanted = stat.S_IMODE(mode) & (_FOLDER if stat.S_ISDIR(mode) else _FILE)
        if stat.S_IMODE(mode) != wanted:
            path.chmod(wanted)
    except FileNotFoundError:
        pass
    except OSError as error:
        _LOGGER.warning("%s can be read by others, and that cannot be changed: %s", path, error.strerror)


def make_tree_private(folder: Path) -> None:
    """`make_private` for a folder and everything in it, except links. It blocks: call it in a thread."""
    make_private(folder)
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(at, name)
            if not path.is_symlink():
                make_private(path)
