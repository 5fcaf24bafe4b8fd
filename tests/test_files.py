"""Files that are whole or not there, and texts that are made once."""

import errno
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whyprompt import _cache, _files
from whyprompt.errors import StoreError, WhypromptError
from whyprompt.trials.models import locate
from whyprompt.trials.models.locate import locate_model


def written(path, content=b"new"):
    with _files.whole_file(path) as file:
        file.write(content)


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with _files.whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_whatever_stops_the_writing_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def stopped(error):
        with _files.whole_file(path) as file:
            file.write(b"n")
            raise error

    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            stopped(error)
    with pytest.raises(WhypromptError, match=r"the disk is full: .*/a could not be written") as full:
        stopped(OSError(errno.ENOSPC, "No space left on device"))
    assert full.value.exit_code == 1
    with pytest.raises(WhypromptError, match="could not be written: Input/output error") as failed:
        stopped(OSError(errno.EIO, "Input/output error"))
    assert failed.value.exit_code == 1
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_may_not_be_written_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"/absent/a cannot be written: No such file"):
        written(tmp_path / "absent" / "a")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"/file/a cannot be written: Not a directory"):
        written(tmp_path / "file" / "a")


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, calls = tmp_path / "a", []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append(path.exists()), real(number))[1])
    written(path)
    assert calls == [False]


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_says_who_may_read_it(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        _files.write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode


def test_what_a_killed_process_left_is_cleared_and_what_is_being_written_is_not(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from whyprompt._files import whole_file
with whole_file(Path({str(tmp_path / "a")!r})) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = tmp_path.iterdir()
    written(tmp_path / "b")
    assert left.exists()
    old = time.time() - 2 * 3600
    os.utime(left, (old, old))
    written(tmp_path / "b")
    assert [f.name for f in tmp_path.iterdir()] == ["b"]


def test_no_file_is_written_any_other_way():
    """A half-written file is somebody's wrong number."""
    source = Path(_files.__file__).parent
    plain = re.compile(
        r"\.write_(text|bytes)\(|savez\w*\((?!file\b)|json\.dump\(|\.to_(csv|parquet)\((?!file\b)"
    )
    found = [
        f"{file.name}: {line.strip()}"
        for file in source.rglob("*.py")
        # Figures handed to another interpreter, and a model's conversion: in a folder of their own.
        if file.name not in {"peers.py", "run_peers.py"}
        for line in file.read_text(encoding="utf-8").splitlines()
        # An example makes the file that it reads.
        if plain.search(line) and "(making / " not in line and not line.strip().startswith((">>>", "..."))
    ]
    assert found == []


# ------------------------------------------------------------------------------------------ caches
def test_a_model_is_never_known_by_half_a_hash(tmp_path, monkeypatch, model_maker):
    """Empty files where hashes are kept made every model the same one."""
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "cache"))
    one, two = (model_maker(tmp_path / n, seed=s) for n, s in (("one", 0), ("two", 1)))
    true = [locate_model(str(m))[1] for m in (one, two)]
    assert true[0] != true[1]
    kept = sorted((tmp_path / "cache" / "hashes").iterdir())
    assert sorted(f.read_text() for f in kept) == sorted(true)
    for damage in (b"", b"0" * 63, b"0" * 65, b"G" * 64, b"\xff" * 64, true[0].encode() + b"\n"):
        for file in kept:
            file.write_bytes(damage)
        assert [locate_model(str(m))[1] for m in (one, two)] == true
        assert sorted(f.read_text() for f in kept) == sorted(true)


def test_a_hash_is_taken_over_without_hashing_again(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "cache"))
    true = locate_model(str(tiny_model))[1]
    monkeypatch.setattr(locate, "hash_files", lambda _: pytest.fail("hashed again"))
    assert locate_model(str(tiny_model))[1] == true


@pytest.mark.parametrize("half", ["", "1", "1.", "1.2", "nan", "inf", "-1.25", "1.250"])
def test_half_a_figure_is_measured_again(tmp_path, monkeypatch, half):
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path))
    assert _cache.remembered_ratio("a", lambda: 12.254) == 12.25
    (file,) = (tmp_path / "speed").iterdir()
    assert file.read_text() == "12.25"
    assert _cache.remembered_ratio("a", lambda: 3.0) == 12.25
    file.write_text(half)
    assert _cache.remembered_ratio("a", lambda: 1.25) == 1.25
    assert file.read_text() == "1.25"


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "file" / "cache"))
    assert _cache.remembered_ratio("a", lambda: 1.5) == 1.5
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path / "cache"))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert _cache.remembered_ratio("a", lambda: 1.5) == 1.5
    assert list((tmp_path / "cache" / "speed").iterdir()) == []
