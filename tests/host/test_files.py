"""Atomic replacement of files and folders."""

import errno
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from host.files import (
    UnreadableFileError,
    create_file_once,
    fsync_folder,
    keep_files_private,
    make_private_folder,
    read_regular_file,
    replace_file,
    replace_folder,
    replacing_file,
    take_group_rights,
)


def names(folder: Path) -> list[str]:
    """The names in *folder*, in order."""
    return sorted(entry.name for entry in folder.iterdir())


def refuse_fsync(_descriptor: int) -> None:
    """What fsync does on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_replace_file_writes_bytes_and_text_and_leaves_nothing_beside(tmp_path: Path) -> None:
    """Text is UTF-8 and keeps its line ends; no temporary file stays."""
    path = tmp_path / "file"
    replace_file(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    replace_file(path, "Grüße\n", durable=False)
    assert path.read_bytes() == "Grüße\n".encode()
    assert names(tmp_path) == ["file"]


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that takes no right away."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    """Return the permissions of *path*."""
    return stat.S_IMODE(path.stat().st_mode)


def test_replaced_files_and_folders_are_private(tmp_path: Path, open_umask: None) -> None:
    """Whatever the umask and the old file's permissions are."""
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    replace_file(path, b"new")
    assert mode_of(path) == 0o600
    replace_folder(tmp_path / "version", {"model.onnx": b"weights"})
    assert mode_of(tmp_path / "version") == 0o700
    assert mode_of(tmp_path / "version" / "model.onnx") == 0o600


def test_private_folder_loses_the_rights_of_others(tmp_path: Path, open_umask: None) -> None:
    """It is repaired where it is there, and made private where it is not."""
    made, there = tmp_path / "a" / "made", tmp_path / "there"
    there.mkdir(mode=0o755)
    for folder in (made, there):
        make_private_folder(folder)
        assert mode_of(folder) == 0o700


def test_private_folder_of_another_user_is_named_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The program goes on, because it cannot change them."""

    def refuse(*_: object) -> None:
        raise PermissionError("not the owner")

    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    make_private_folder(tmp_path)
    assert "has mode 755, and others may read it" in caplog.text


def test_group_rights_of_another_users_secret_are_named_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A volume of Kubernetes with fsGroup belongs to root, so the program goes on."""

    def refuse(*_: object) -> None:
        raise PermissionError("not the owner")

    secret = tmp_path / "key"
    secret.write_bytes(b"secret")
    secret.chmod(0o640)
    monkeypatch.setattr(Path, "chmod", refuse)
    assert take_group_rights(secret)
    assert "key has mode 640: its group has rights; they stay" in caplog.text


def test_file_is_made_once_by_many_processes_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and some network folders have none. One content wins, and each process sees it."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "keys" / "secret"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: create_file_once(path, b"%d" % n * 1_000), range(8)))
    content = path.read_bytes()
    assert len(set(content)) == 1
    assert len(content) == 1_000
    create_file_once(path, b"later")
    assert path.read_bytes() == content
    assert [item.name for item in path.parent.iterdir()] == ["secret"]


def test_files_of_a_private_process_are_private(tmp_path: Path, open_umask: None) -> None:
    """Files, folders and Unix sockets that a library makes too, and those of children."""
    keep_files_private()
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    subprocess.run(["touch", str(tmp_path / "child")], check=True)
    assert {path.name: mode_of(path) & 0o077 for path in tmp_path.iterdir()} == dict.fromkeys(
        ("folder", "file", "socket", "child"), 0
    )


def test_replace_file_syncs_the_file_and_its_folder_when_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the file, then its folder; without durable, neither."""
    synced: list[bool] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
    )
    replace_file(tmp_path / "file", b"a", durable=False)
    assert synced == []
    replace_file(tmp_path / "file", b"b")
    assert synced == [False, True]


def test_replace_file_leaves_the_old_file_when_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes out, and the temporary file is removed."""
    path = tmp_path / "file"
    replace_file(path, b"old")
    monkeypatch.setattr(os, "fsync", refuse_fsync)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_replace_file_is_seen_whole_by_concurrent_readers(tmp_path: Path) -> None:
    """Two writers replace it all the time, and a reader never sees a mixture."""
    path = tmp_path / "file"
    contents = {b"a" * 50_000, b"b" * 90_000}
    replace_file(path, min(contents))
    done = threading.Event()

    def write(content: bytes) -> None:
        for _ in range(50):
            replace_file(path, content, durable=False)

    def read() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(path.read_bytes())
        return seen

    with ThreadPoolExecutor(3) as pool:
        reading = pool.submit(read)
        for writing in [pool.submit(write, content) for content in contents]:
            writing.result()
        done.set()
        assert reading.result() <= contents
    assert names(tmp_path) == ["file"]


def test_replacing_file_renames_what_the_body_wrote(tmp_path: Path) -> None:
    """The old content stays visible until the body has returned."""
    path = tmp_path / "table.parquet"
    path.write_text("old")
    with replacing_file(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
        assert beside.parent == tmp_path
    assert path.read_text() == "new"
    assert names(tmp_path) == ["table.parquet"]


def test_replacing_file_keeps_the_old_file_when_the_body_raises(tmp_path: Path) -> None:
    """What the body wrote so far is removed."""
    path = tmp_path / "table.parquet"
    path.write_text("old")
    with pytest.raises(ValueError, match="broken"), replacing_file(path) as beside:  # noqa: PT012
        beside.write_text("half")
        raise ValueError("broken")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["table.parquet"]


def test_replace_folder_makes_a_folder_hold_exactly_the_files(tmp_path: Path) -> None:
    """Parents are made, and files of before are gone."""
    folder = tmp_path / "deep" / "version"
    replace_folder(folder, {"a": b"1", "b": b"2"})
    replace_folder(folder, {"b": b"3", "c": b""})
    assert {name: (folder / name).read_bytes() for name in names(folder)} == {"b": b"3", "c": b""}
    assert names(folder.parent) == ["version"]


def test_replace_folder_does_not_touch_a_folder_that_has_the_files(tmp_path: Path) -> None:
    """The folder is not even renamed: its inode stays."""
    folder = tmp_path / "version"
    replace_folder(folder, {"a": b"1"})
    inode = folder.stat().st_ino
    replace_folder(folder, {"a": b"1"})
    assert folder.stat().st_ino == inode


def test_replace_folder_leaves_the_old_files_when_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes out, and nothing is left beside the folder."""
    folder = tmp_path / "version"
    replace_folder(folder, {"a": b"1"})
    monkeypatch.setattr(os, "fsync", refuse_fsync)
    with pytest.raises(OSError, match="No space left"):
        replace_folder(folder, {"a": b"2"})
    assert (folder / "a").read_bytes() == b"1"
    assert names(tmp_path) == ["version"]


def test_replace_folder_by_several_writers_of_the_same_files_succeeds(tmp_path: Path) -> None:
    """Six writers at once, now and then with other content."""
    folder, files = tmp_path / "version", {"a": b"1", "b": b"2"}
    together = threading.Barrier(6)

    def write(number: int) -> None:
        for turn in range(5):
            together.wait(10)
            replace_folder(folder, {**files, "turn": b"%d" % (number * turn % 2)})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    replace_folder(folder, files)
    assert names(folder) == ["a", "b"]
    assert names(tmp_path) == ["version"]


def test_read_regular_file_returns_the_whole_content(tmp_path: Path) -> None:
    """A file of exactly the largest size is read."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular_file(path, 5) == b"12345"


def test_read_regular_file_refuses_links_pipes_folders_and_large_files(tmp_path: Path) -> None:
    """A pipe is refused without waiting for a writer."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnreadableFileError, match="at most 4 bytes"):
        read_regular_file(path, 4)
    for name in ("link", "pipe", "folder", "absent"):
        with pytest.raises(UnreadableFileError, match=name):
            read_regular_file(tmp_path / name, 100)


def test_fsync_folder_refuses_what_is_no_folder(tmp_path: Path) -> None:
    """A plain file is an error."""
    fsync_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        fsync_folder(tmp_path / "file")
