"""Fashion-MNIST: 60,000 + 10,000 grey images of clothes, 28x28, 10 classes of equal size.

Source: Xiao, Rasul, Vollgraf 2017 (arXiv 1708.07747), MIT licence.
"""

from __future__ import annotations

import os
from pathlib import Path

from geojax.data.dataset import DATASETS, FilesConfig, Stored
from geojax.data.idx import cache_folder, given_folder, missing, mnist_files, read_all, search
from geojax.errors import DataError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
OFFICIAL_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"  # has no https
URL_VARIABLE = "GEOJAX_FASHION_MNIST_URL"  # environment: a mirror to download from instead

FILES = mnist_files(
    "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
)


@DATASETS.register("fashion_mnist", FilesConfig)
def fashion_mnist(config: FilesConfig) -> Stored:
    """Looks in ``data.path``, in the place of Debian's package, in the cache; then downloads.

    The hash of the decompressed arrays is always checked, wherever they come from.

    Raises:
      DataError: found nowhere (says what to install or fetch), or damaged (says which file).
    """
    cache = cache_folder("fashion-mnist")
    folder, searched = search(FILES, [*given_folder(config.path), DEBIAN_FOLDER, cache])
    if folder is None:
        folder = cache
        _download(cache, searched, allowed=config.download)
    train_x, train_y, test_x, test_y = read_all(FILES, folder)
    return Stored(train_x, train_y, test_x, test_y, classes=10, largest=255)


def _download(cache: Path, searched: str, *, allowed: bool) -> None:
    """Fills the cache, or explains in full what else would help."""
    from geojax.data.download import fetch  # slow to load, and seldom needed

    base = os.environ.get(URL_VARIABLE) or OFFICIAL_URL
    problem, cause = "data.download is false", None
    if allowed:
        try:
            return fetch(base, missing(FILES, cache), cache)
        except DataError as error:
            problem, cause = str(error), error
    names = " ".join(f"{item.file}.gz" for item in FILES)
    raise DataError(
        f"Fashion-MNIST is not here and was not downloaded: {problem}.\n"
        f"Searched: {searched}.\n"
        "Do one of these:\n"
        "  - install the package of Debian or Ubuntu: apt-get install dataset-fashion-mnist\n"
        f"  - fetch {names}\n"
        f"    from {OFFICIAL_URL}/\n"
        f"    into {cache} or into any folder that data.path names\n"
        f"  - name a mirror that serves these files in the environment variable {URL_VARIABLE}"
    ) from cause
