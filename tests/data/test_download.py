"""Downloads, from a server on the loopback interface."""

import gzip
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from idx_samples import idx_bytes, small_set

from geojax.config import DataConfig
from geojax.data import download, fashion_mnist, load_dataset
from geojax.data.dataset import FilesConfig
from geojax.data.idx import cache_folder
from geojax.errors import DataError

REAL = fashion_mnist.DEBIAN_FOLDER


class Mirror:
    """A web server with files of our choice; ``cut`` bytes are left out at each answer's end."""

    def __init__(self):
        self.files, self.asked, self.cut, self.sized = {}, [], 0, True
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.asked.append(self.path)
                content = mirror.files.get(self.path)
                if content is None:
                    return self.send_error(404)
                self.send_response(200)
                if mirror.sized:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) - mirror.cut])
                return None

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/mirror"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """No package, no cache, no proxy; returns the cache folder that will be used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "absent")
    return cache_folder("fashion-mnist")


@pytest.fixture
def mirror(empty_machine, monkeypatch):
    """A mirror of a small set, known to the loader by environment variable."""
    files, arrays = small_set(fashion_mnist.FILES)
    with Mirror() as server:
        for item, array in zip(files, arrays, strict=True):
            server.files[f"/mirror/{item.file}.gz"] = gzip.compress(idx_bytes(array))
        monkeypatch.setattr(fashion_mnist, "FILES", tuple(files))
        monkeypatch.setenv(fashion_mnist.URL_VARIABLE, server.url)
        yield server


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_nowhere_is_downloaded_once_into_the_cache(mirror, empty_machine, capsys):
    data = load_dataset(DataConfig())
    assert data.train_x.shape == (30, 28, 28, 1)
    assert listing(empty_machine) == sorted(f"{item.file}.gz" for item in fashion_mnist.FILES)
    assert len(mirror.asked) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "train-images-idx3-ubyte.gz" in err  # the progress bar
    again = load_dataset(DataConfig())
    assert len(mirror.asked) == 4
    np.testing.assert_array_equal(data.train_x, again.train_x)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_the_real_files_over_http(empty_machine, monkeypatch):
    with Mirror() as server:
        monkeypatch.setenv(fashion_mnist.URL_VARIABLE, f"{server.url}/")
        for path in REAL.glob("*.gz"):
            server.files[f"/mirror/{path.name}"] = path.read_bytes()
        data = load_dataset(DataConfig(train_samples=1000, test_samples=100))
    assert np.bincount(data.train_y).tolist() == [100] * 10
    assert len(listing(empty_machine)) == 4


def test_only_missing_files_are_fetched(mirror, empty_machine):
    load_dataset(DataConfig())
    (empty_machine / f"{fashion_mnist.FILES[2].file}.gz").unlink()
    mirror.asked.clear()
    load_dataset(DataConfig())
    assert mirror.asked == [f"/mirror/{fashion_mnist.FILES[2].file}.gz"]


def test_a_server_that_does_not_state_sizes_will_do(mirror):
    mirror.sized = False
    assert load_dataset(DataConfig()).classes == 10


def test_many_processes_may_download_at_once(mirror, empty_machine):
    with ThreadPoolExecutor(4) as pool:  # threads stand in for processes: nothing is shared
        sets = list(pool.map(lambda _: load_dataset(DataConfig()), range(4)))
    assert all(np.array_equal(sets[0].train_x, other.train_x) for other in sets)
    assert len(listing(empty_machine)) == 4


def test_without_permission_nothing_is_asked_for(mirror):
    with pytest.raises(DataError, match=r"data\.download is false"):
        load_dataset(FilesConfig(download=False))
    assert mirror.asked == []


def missing_file(mirror):
    mirror.files.popitem()
    return "HTTP Error 404"


def cut_short(mirror):
    mirror.cut = 5
    return r"ended after \d+ of \d+ bytes"


def cut_short_without_a_size(mirror):
    mirror.cut, mirror.sized = 5, False
    return "sent something else: .*cannot be read"


def a_login_page(mirror):
    mirror.files = dict.fromkeys(mirror.files, b"<html>log in first</html>")
    return "sent something else: .*no IDX file"


def other_data(mirror):
    path = next(iter(mirror.files))
    content = bytearray(gzip.decompress(mirror.files[path]))
    content[-1] ^= 1
    mirror.files[path] = gzip.compress(bytes(content))
    return "sent something else: .*sha256"


@pytest.mark.parametrize(
    "spoil", [missing_file, cut_short, cut_short_without_a_size, a_login_page, other_data]
)
def test_a_bad_download_leaves_nothing_and_says_what_to_do(mirror, empty_machine, spoil):
    expected = spoil(mirror)
    with pytest.raises(DataError, match=expected) as caught:
        load_dataset(DataConfig())
    assert mirror.url in str(caught.value)
    assert "apt-get install dataset-fashion-mnist" in str(caught.value)
    whole = {f"{item.file}.gz" for item in fashion_mnist.FILES}
    assert set(listing(empty_machine)) < whole  # no partial or temporary file
    for item in fashion_mnist.FILES:  # and what did arrive is sound
        if path := item.find(empty_machine):
            item.read(path)


def test_an_endless_answer_is_cut_off(mirror, monkeypatch, empty_machine):
    monkeypatch.setattr(download, "LARGEST_BYTES", 100)
    with pytest.raises(DataError, match="sent more than 100 bytes"):
        load_dataset(DataConfig())
    assert listing(empty_machine) == []


def test_a_server_that_is_not_there(empty_machine, monkeypatch):
    with Mirror() as gone:
        pass
    monkeypatch.setenv(fashion_mnist.URL_VARIABLE, gone.url)
    with pytest.raises(DataError, match=r"could not be fetched .*refused"):
        load_dataset(DataConfig())


@pytest.mark.parametrize("address", ["file:///etc", "ftp://127.0.0.1/x", "/srv/mirror"])
def test_only_the_web_is_asked(empty_machine, monkeypatch, address):
    monkeypatch.setenv(fashion_mnist.URL_VARIABLE, address)
    with pytest.raises(DataError, match=r"is no address of http"):
        load_dataset(DataConfig())


def test_a_cache_that_cannot_be_written(mirror, empty_machine):
    empty_machine.parent.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="could not be fetched"):
        load_dataset(DataConfig())
