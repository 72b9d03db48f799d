"""Downloads of data files: bounded, checked before they appear, with a progress bar."""

from __future__ import annotations

import os
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from geojax.data.idx import IdxArray
from geojax.errors import DataError

TIMEOUT_S = 30.0  # silence of the server after which a download is given up
LARGEST_BYTES = 256 * 2**20  # of one file
_BLOCK_BYTES = 2**16


def fetch(base: str, files: Sequence[IdxArray], folder: Path) -> None:
    """Downloads ``<base>/<file>.gz`` for every file into ``folder``.

    A file appears under its name only when it is whole and its content has the right hash, so an
    interrupted download leaves nothing that could be mistaken for data, and any number of
    processes may do this at once.

    Args:
      base: address of a folder, http or https.
      files: what to fetch.
      folder: made where absent.

    Raises:
      DataError: something could not be fetched, or is not what it should be; says which address.
    """
    if not base.startswith(("http://", "https://")):
        raise DataError(f"{base!r} is no address of http:// or https://")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for item in files:
            url = f"{base.rstrip('/')}/{item.file}.gz"
            task = progress.add_task(f"{item.file}.gz", total=None)

            def show(done: int, total: int | None, task=task) -> None:
                progress.update(task, completed=done, total=total)

            try:
                _fetch_one(url, item, folder, show)
            except (OSError, HTTPException) as problem:
                raise DataError(f"{url} could not be fetched ({problem})") from problem


def _fetch_one(url: str, item: IdxArray, folder: Path, show: Callable) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{item.file}-", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _copy(url, file, show)
        try:
            item.read(part)
        except DataError as problem:
            raise DataError(f"{url} sent something else: {problem}") from problem
        part.replace(folder / f"{item.file}.gz")
    finally:
        part.unlink(missing_ok=True)


def _copy(url: str, file: IO[bytes], show: Callable) -> None:
    # the scheme was checked by fetch(), and urllib follows redirects to the web only
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
        size = answer.headers.get("Content-Length")
        total = int(size) if size and size.isdecimal() else None
        done = 0
        while block := answer.read(_BLOCK_BYTES):
            done += len(block)
            if done > LARGEST_BYTES:
                raise DataError(f"{url} sent more than {LARGEST_BYTES} bytes")
            file.write(block)
            show(done, total)
    if total is not None and done != total:
        raise DataError(f"{url} ended after {done} of {total} bytes")
