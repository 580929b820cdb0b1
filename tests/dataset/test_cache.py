import multiprocessing
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from squad_lit.dataset.cache import DiskCache


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    return path


def test_what_was_put_is_there_for_another_process(tmp_path: Path, source: Path) -> None:
    value = torch.rand(3, 4, 5)
    DiskCache(tmp_path / "cache").put([source], "x", value)
    found = DiskCache(tmp_path / "cache").get([source], "x")
    assert found is not None
    assert torch.equal(found, value)


def test_other_options_files_sizes_and_times_are_other_entries(tmp_path: Path, source: Path) -> None:
    cache, other = DiskCache(tmp_path / "cache"), tmp_path / "b.png"
    other.write_bytes(b"12345")
    cache.put([source], "x", torch.zeros(1))
    assert cache.get([source], "y") is None
    assert cache.get([other], "x") is None
    assert cache.get([source, other], "x") is None
    stat = source.stat()
    source.write_bytes(b"123456")
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cache.get([source], "x") is None
    source.write_bytes(b"54321")
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert cache.get([source], "x") is None


def test_a_damaged_file_is_read_anew(tmp_path: Path, source: Path) -> None:
    cache = DiskCache(tmp_path / "cache")
    cache.put([source], "x", torch.ones(100))
    (file,) = cache.folder.glob("*.npy")
    file.write_bytes(file.read_bytes()[:150])
    assert cache.get([source], "x") is None
    for content in (b"", b"PK\x03\x04 what numpy takes for an archive"):
        file.write_bytes(content)
        assert cache.get([source], "x") is None


def test_a_full_disk_is_a_warning_and_leaves_nothing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = DiskCache(tmp_path / "cache")
    cache.put([source], "before", torch.ones(2))

    def full(file: BinaryIO, _: object) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full)
    for _ in range(2):
        cache.put([source], "x", torch.ones(2))
    assert len(list(cache.folder.iterdir())) == 1
    assert cache.get([source], "before") is not None
    assert cache.get([source], "x") is None
    assert [record.getMessage().split(". ")[0] for record in caplog.records] == [
        f"cannot write to the cache folder {cache.folder}: No space left on device"
    ]


def put_all(folder: Path, source: Path) -> None:
    for i in range(50):
        DiskCache(folder).put([source], str(i), torch.full((3, 16, 16), float(i)))


def test_processes_that_write_the_same_at_once_leave_whole_files(tmp_path: Path, source: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=put_all, args=(tmp_path / "cache", source)) for _ in range(3)]
    for process in processes:
        process.start()
    cache = DiskCache(tmp_path / "cache")
    while any(process.is_alive() for process in processes):
        seen = [cache.get([source], str(i)) for i in range(50)]
        assert all(v is None or torch.equal(v, torch.full((3, 16, 16), float(i))) for i, v in enumerate(seen))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert all(cache.get([source], str(i)) is not None for i in range(50))
    assert len(list(cache.folder.iterdir())) == 50


def test_a_folder_that_cannot_be_made_says_what_to_do(source: Path) -> None:
    with pytest.raises(OSError, match=r"dataset\.cache_folder=PATH, or set dataset\.cache=off"):
        DiskCache(source / "cache")


def test_files_may_be_read_by_whoever_the_umask_allows(tmp_path: Path, source: Path) -> None:
    cache = DiskCache(tmp_path / "cache")
    before = os.umask(0o027)
    try:
        cache.put([source], "x", torch.ones(2))
    finally:
        os.umask(before)
    (file,) = cache.folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_file_that_may_not_be_read_is_a_warning(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np.lib.format, "open_memmap", deny)
    cache = DiskCache(tmp_path / "cache")
    assert cache.get([source], "x") is None
    assert cache.get([source], "x") is None
    assert len(caplog.records) == 1
    assert "cannot read from the cache folder" in caplog.text
