"""Downloads, against a server on this machine: good, corrupt, cut off, dead, and all of them at once."""

from __future__ import annotations

import errno
import gzip
import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from minigen import data
from minigen.data import download
from minigen.data.cache import cache_dir, whole_file
from minigen.data.cifar10 import ARCHIVE
from minigen.data.download import fetch
from minigen.data.mnist import STEMS
from minigen.data.remote import REMOTES, Remote, RemoteFile
from minigen.data.verify import folder_of, is_present, verify
from minigen.errors import UserError

SIZES = {"train-images-idx3-ubyte": (12, 4, 4), "train-labels-idx1-ubyte": (12,)}
SIZES |= {name.replace("train", "t10k"): (3, *shape[1:]) for name, shape in SIZES.items()}


def _content(name):
    shape = SIZES[name]
    values = np.random.default_rng(len(shape)).integers(0, 10, shape, np.uint8)
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + values.tobytes()


CONTENT = {name: _content(name) for name in SIZES}
GOOD = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in CONTENT.items()}


class Handler(BaseHTTPRequestHandler):
    """/good/, /corrupt/ (one byte differs), /cut/ (ends early), /long/, /other/ (another length), /404/."""

    def do_GET(self):
        _, behaviour, name = self.path.split("/")
        self.server.asked.append(self.path)
        body = GOOD.get(name, b"")
        if behaviour == "404" or not body:
            self.send_error(404)
            return
        self.send_response(200)
        if behaviour == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if behaviour == "other":
            body += b"?"
        if behaviour != "long":  # without a length the body lasts until the connection closes
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(
            body[: len(body) // 2] if behaviour == "cut" else body + b"?" * (behaviour == "long")
        )

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def dead():
    """A URL nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.fixture
def use(monkeypatch, tmp_path):
    """use(mirrors...) makes "mnist" the four small files on these mirrors, and the cache an empty folder."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "cache"))

    def install(*mirrors):
        files = tuple(
            RemoteFile(f"{name}.gz", len(GOOD[f"{name}.gz"]), _sha(GOOD[f"{name}.gz"]), {name: _sha(content)})
            for name, content in CONTENT.items()
        )
        monkeypatch.setitem(REMOTES, "mnist", Remote(mirrors, files, "the four IDX files"))
        return tmp_path / "cache" / "mnist"

    return install


def _sha(content):
    return hashlib.sha256(content).hexdigest()


def names(place):
    return sorted(path.name for path in place.iterdir())


def quiet(message):
    pass


def test_a_good_download(server, use):
    place = use(f"{server.url}/good/")
    said = []
    assert fetch("mnist", say=said.append) == place
    assert {path.name: path.read_bytes() for path in place.iterdir()} == GOOD
    assert len(said) == 4 and all(f"{server.url}/good/" in line and str(place) in line for line in said)
    assert len(server.asked) == 4
    fetch("mnist", say=quiet)
    assert len(server.asked) == 4  # nothing is downloaded twice
    assert all(check.ok for check in verify("mnist"))


def test_the_cache_folder_can_be_given(server, use, tmp_path):
    use(f"{server.url}/good/")
    assert fetch("mnist", cache=tmp_path / "mine", say=quiet) == tmp_path / "mine" / "mnist"
    assert names(tmp_path / "mine" / "mnist") == sorted(GOOD)


def test_files_of_the_right_size_are_not_read_at_every_start(use):
    place = use()
    place.mkdir(parents=True)
    for name, content in GOOD.items():
        (place / name).write_bytes(bytes(len(content)))
    assert is_present("mnist", place)
    assert not any(check.ok for check in verify("mnist"))


def test_load_downloads_and_says_so(server, use, capsys):
    use(f"{server.url}/good/")
    ds = data.load("mnist")
    assert ds.name == "mnist" and ds.images.shape == (12, 1, 4, 4) and "LeCun" in ds.source
    assert "downloading train-images-idx3-ubyte.gz" in capsys.readouterr().err
    data.load("mnist")
    assert len(server.asked) == 4 and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "behaviour, fault",
    [
        ("corrupt", "corrupt: the SHA-256 differs"),
        ("cut", "bytes"),
        ("long", "corrupt: more than"),
        ("other", "offers"),
        ("404", "HTTP 404"),
    ],
)
def test_a_bad_mirror_is_passed_over(server, use, behaviour, fault):
    place = use(f"{server.url}/{behaviour}/", f"{server.url}/good/")
    said = []
    fetch("mnist", say=said.append)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == GOOD
    assert sum(fault in line and f"/{behaviour}/" in line for line in said) >= 4


def test_a_dead_first_mirror(server, use, dead):
    place = use(dead, f"{server.url}/good/")
    fetch("mnist", say=quiet)
    assert names(place) == sorted(GOOD)


def test_all_mirrors_fail(server, use, dead):
    place = use(dead, f"{server.url}/corrupt/", f"{server.url}/cut/", f"{server.url}/404/")
    with pytest.raises(UserError) as caught:
        fetch("mnist", say=quiet)
    message = str(caught.value)
    assert "\n" not in message
    first = "train-images-idx3-ubyte.gz"
    size = len(GOOD[first])
    assert f"{dead}{first}: Connection refused" in message
    assert f"{server.url}/corrupt/{first}: corrupt: the SHA-256 differs" in message
    assert f"{server.url}/cut/{first}: " in message and f"{size // 2} of {size} bytes" in message
    assert f"{server.url}/404/{first}: HTTP 404 Not Found" in message
    assert "if you have the data" in message and "the four IDX files" in message and str(place) in message
    assert names(place) == []  # no half file, no temporary file


def test_a_server_that_says_nothing_is_given_up(use, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        use(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(UserError, match=r"no answer in 0\.2 s"):
            fetch("mnist", say=quiet)


def test_what_was_downloaded_before_a_failure_is_kept(server, use, dead):
    place = use(f"{server.url}/good/")
    fetch("mnist", say=quiet)
    (place / "t10k-labels-idx1-ubyte.gz").unlink()
    use(dead)
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz could not be downloaded"):
        fetch("mnist", say=quiet)
    assert len(names(place)) == 3


def test_a_damaged_file_in_the_cache_is_found_and_replaced(server, use):
    place = use(f"{server.url}/good/")
    fetch("mnist", say=quiet)
    path = place / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    checks = {check.file: check.ok for check in verify("mnist")}
    assert checks == {name: name != path.name for name in GOOD}
    fetch("mnist", say=quiet)
    assert all(check.ok for check in verify("mnist")) and len(server.asked) == 5


def test_the_same_content_in_another_wrapper_is_accepted(use, dead):
    place = use(dead)
    place.mkdir(parents=True)
    for name, content in CONTENT.items():
        if "images" in name:
            (place / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
        else:
            (place / name).write_bytes(content)  # unpacked
    assert is_present("mnist", place)
    assert [check.message for check in verify("mnist")] == ["canonical content"] * 4
    assert fetch("mnist", say=quiet) == place
    assert data.load("mnist").images.shape == (12, 1, 4, 4)


def test_verify_tells_what_is_wrong(use, tmp_path):
    place = use("http://127.0.0.1:1/")
    with pytest.raises(UserError, match="holds none of the files of mnist; `minigen data fetch mnist`"):
        verify("mnist")
    with pytest.raises(UserError, match="not a published data set"):
        verify("minst")
    place.mkdir(parents=True)
    first, second, third, _ = GOOD
    (place / first).write_bytes(gzip.compress(CONTENT[first[:-3]][:-1] + b"\xff"))
    (place / second).write_bytes(GOOD[second][:-3])
    (place / third).write_bytes(b"hello")
    checks = verify("mnist", place)
    assert not any(check.ok for check in checks)
    expected = ["differs from the published content", "cut off", "not a gzip file", "missing"]
    assert all(part in check.message for part, check in zip(expected, checks, strict=True)), checks


def test_verify_cifar10_in_every_form(tmp_path, monkeypatch):
    batches = {f"data_batch_{i}.bin": bytes([i]) * 10 for i in range(1, 6)} | {"test_batch.bin": b"test"}
    contents = {name: _sha(content) for name, content in batches.items()}
    file = RemoteFile("cifar-10-binary.tar.gz", 1, "0" * 64, contents)
    monkeypatch.setitem(REMOTES, "cifar10", Remote((), (file,), ""))
    for name, content in batches.items():
        (tmp_path / name).write_bytes(content)
    assert all(check.ok for check in verify("cifar10", tmp_path))
    (tmp_path / "data_batch_3.bin").write_bytes(b"changed")
    (tmp_path / "test_batch.bin").unlink()
    checks = {check.file: check for check in verify("cifar10", tmp_path)}
    assert not checks["data_batch_3.bin"].ok and "differs" in checks["data_batch_3.bin"].message
    assert checks["test_batch.bin"].message == "missing" and checks["data_batch_1.bin"].ok


def test_an_unwritable_cache_is_not_blamed_on_the_mirror(server, use, tmp_path, monkeypatch):
    use(f"{server.url}/good/")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write train-images-idx3-ubyte.gz: Not a directory"):
        fetch("mnist", say=quiet)


def test_a_full_disk_leaves_nothing_behind(server, use, monkeypatch):
    place = use(f"{server.url}/good/")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    with pytest.raises(UserError, match="No space left on device"):
        fetch("mnist", say=quiet)
    assert names(place) == []


def test_an_unknown_name():
    with pytest.raises(
        UserError, match="'imagenet' is not a published data set; these are: mnist, fashion, cifar10"
    ):
        fetch("imagenet")


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and names(tmp_path) == ["x"]
    with whole_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["x"]


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path))
    assert cache_dir() == tmp_path and folder_of("mnist") == tmp_path / "mnist"
    monkeypatch.delenv("MINIGEN_DATA")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "minigen"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG rules: to be ignored
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "minigen"


def test_the_published_list_is_well_formed():
    for name, remote in REMOTES.items():
        assert len(remote.mirrors) >= 3, name
        assert all(url.startswith(("https://", "http://")) and url.endswith("/") for url in remote.mirrors)
        for file in remote.files:
            assert file.size > 0
            assert file.name in (*(f"{stem}.gz" for stem in STEMS), ARCHIVE)
            assert all(len(sha) == 64 and int(sha, 16) for sha in (file.sha256, *file.contents.values()))
