"""Data files: where they are looked for, downloads from local servers, and what goes wrong."""

import functools
import gzip
import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from elenas_jax.tasks.data_files import Source, data_folder, find_file, read_file, read_path, read_text
from elenas_jax.tasks.records import DataError

CONTENT = b"some text\n" * 100
NAME = "set/file.txt"
BY_HAND = "get it by hand."


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def source_of(*urls, content=CONTENT):
    return Source(urls, {NAME: sha256(content)}, BY_HAND)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def served(tmp_path):
    """A gzipped file and its file:// address."""
    path = tmp_path / "served.gz"
    path.write_bytes(gzip.compress(CONTENT))
    return path


def leftovers(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def message_of(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_the_folder_is_an_argument_else_of_the_environment_else_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ELENAS_DATA_DIR", "elsewhere")
    assert data_folder("here").name == "here" and data_folder(None).name == "elsewhere"
    assert data_folder("~/here") == tmp_path / "here"
    monkeypatch.delenv("ELENAS_DATA_DIR")
    assert data_folder(None) == tmp_path / ".cache/elenas_jax/data"


@pytest.mark.parametrize("is_gzipped", [False, True])
def test_a_file_that_is_there_is_read_without_download(folder, is_gzipped):
    (folder / "set").mkdir(parents=True)
    path = folder / (f"{NAME}.gz" if is_gzipped else NAME)
    path.write_bytes(gzip.compress(CONTENT) if is_gzipped else CONTENT)
    assert read_file(folder, NAME, source_of("file:///does/not/exist.gz")) == CONTENT
    assert find_file(folder, NAME) == path


def test_download_is_kept_and_announced(folder, served, capsys):
    source = source_of(served.as_uri())
    assert read_file(folder, NAME, source) == CONTENT
    assert capsys.readouterr().err == f"downloading {served.as_uri()}\n"
    assert leftovers(folder) == [f"{NAME}.gz"]
    served.unlink()
    assert read_file(folder, NAME, source) == CONTENT


def test_the_second_source_is_tried_over_http(tmp_path, folder, served, capsys):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        assert read_file(folder, NAME, source_of(f"{base}/none.gz", f"{base}/served.gz")) == CONTENT
        with pytest.raises(DataError) as error:
            read_file(folder, "set/other.txt", source_of(f"{base}/none.gz"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert capsys.readouterr().err.count("\n") == 3
    assert f"{folder}/set/other.txt.gz: no such file, and downloading failed" in message_of(error)
    assert "HTTP Error 404" in message_of(error) and message_of(error).endswith(BY_HAND)


def test_a_wrong_checksum_names_both_and_leaves_nothing(folder, served):
    with pytest.raises(DataError) as error:
        read_file(folder, NAME, source_of(served.as_uri(), content=b"other"))
    assert sha256(CONTENT) in message_of(error) and sha256(b"other") in message_of(error)
    assert leftovers(folder) == []


@pytest.mark.parametrize(
    "served_content", [gzip.compress(CONTENT)[:-20], b"<html>moved</html>"], ids=["cut", "html"]
)
def test_a_bad_download_is_one_line_and_leaves_nothing(folder, served, served_content):
    served.write_bytes(served_content)
    with pytest.raises(DataError) as error:
        read_file(folder, NAME, source_of(served.as_uri()))
    assert served.as_uri() in message_of(error)
    assert leftovers(folder) == []


def test_no_network_is_one_line(folder):
    # Nothing listens on port 1 of this machine.
    with pytest.raises(DataError) as error:
        read_file(folder, NAME, source_of("http://127.0.0.1:1/file.gz"))
    assert "refused" in message_of(error) and message_of(error).endswith(BY_HAND)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, served):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"data folder cannot be written .* ELENAS_DATA_DIR"):
        read_file(tmp_path / "file" / "data", NAME, source_of(served.as_uri()))


def test_without_a_download_the_error_says_what_is_expected(folder):
    with pytest.raises(DataError) as error:
        read_file(folder, NAME, source_of())
    assert message_of(error) == f"{folder}/{NAME}.gz: no such file; {BY_HAND}"
    assert not folder.exists()


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_all_files_of_an_archive_come_with_one_download(tmp_path, folder):
    archive = tmp_path / "archive.tgz"
    write_archive(
        archive, {"./top/data/a.txt": b"one", "./top/data/b.txt": b"two", "../../outside.txt": b"never"}
    )
    checksums = {"set/a.txt": sha256(b"one"), "set/b.txt": sha256(b"two")}
    source = Source((archive.as_uri(),), checksums, BY_HAND, archive_folder="./top/data")
    assert read_file(folder, "set/a.txt", source) == b"one"
    archive.unlink()
    assert read_file(folder, "set/b.txt", source) == b"two"
    assert leftovers(folder) == ["set/a.txt.gz", "set/b.txt.gz"]
    assert not list(tmp_path.rglob("outside.txt"))


def test_a_download_does_not_replace_what_is_there(tmp_path, folder):
    archive = tmp_path / "archive.tgz"
    write_archive(archive, {"./data/a.txt": b"one", "./data/b.txt": b"two"})
    (folder / "set").mkdir(parents=True)
    (folder / "set/b.txt").write_bytes(b"the user's")
    checksums = {"set/a.txt": sha256(b"one"), "set/b.txt": sha256(b"two")}
    source = Source((archive.as_uri(),), checksums, BY_HAND, archive_folder="./data")
    read_file(folder, "set/a.txt", source)
    assert leftovers(folder) == ["set/a.txt.gz", "set/b.txt"]
    assert read_file(folder, "set/b.txt", source) == b"the user's"


def test_a_file_missing_in_an_archive_is_one_line(tmp_path, folder):
    archive = tmp_path / "archive.tgz"
    write_archive(archive, {"./data/else.txt": b"one"})
    source = Source((archive.as_uri(),), {NAME: sha256(b"one")}, BY_HAND, archive_folder="./data")
    with pytest.raises(DataError, match=r"there is no file \./data/file\.txt in the archive"):
        read_file(folder, NAME, source)
    assert leftovers(folder) == []


def test_a_file_cut_off_is_one_line(tmp_path):
    path = tmp_path / "cut.gz"
    for end in (-4, -20, 12):
        path.write_bytes(gzip.compress(CONTENT)[:end])
        with pytest.raises(DataError, match=r"cut\.gz: cut off or damaged .* whole copy"):
            read_path(path)
    damaged = bytearray(gzip.compress(CONTENT))
    damaged[15] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match="cut off or damaged"):
        read_path(path)


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: cannot be read \(No such file or directory\)"):
        read_path(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_path(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin\.txt: byte 3 is not UTF-8 text"):
        read_text(tmp_path / "latin.txt")
    (tmp_path / "marked.txt").write_bytes("\ufeffx".encode())
    assert read_text(tmp_path / "marked.txt") == "x"
