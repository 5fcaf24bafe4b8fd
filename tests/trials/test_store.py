"""The store: whole units, one writer, readable messages. The kill test is in test_kill.py."""

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from whyprompt.errors import StoreError, WhypromptError
from whyprompt.trials import store as store_module
from whyprompt.trials.items.item import Item
from whyprompt.trials.models.local import Encoded
from whyprompt.trials.plan import Trial
from whyprompt.trials.prompts import Prompt
from whyprompt.trials.store import TrialStore

UNSHARE = shutil.which("unshare")
SPEC = {"arms": {"direct": {"shots": 3}, "b": {}}, "reps": 1}


def trial(item="a", arm="direct", rep=0, **outcomes):
    return Trial(
        item=Item(item_id=item, question="q", answer="x", task_type="t"),
        arm=arm,
        rep=rep,
        prompt=Prompt(text="p", answer=" x", separator=" ", segments=(), chat=False),
        encoded=Encoded((1,), (2,)),
        outcomes=outcomes or {"log_prob": -1.0},
        temperature=0.0,
        seed=1,
        latency_s=0.1,
        started_at="2020",
    )


def item(item_id="a", position=0, **covariates):
    return position, Item(item_id=item_id, question="q", answer="x", task_type="t", covariates=covariates)


def begin(store, *, study="s", spec=None, model="m", detail=None, name="n"):
    return store.begin(
        study=study,
        name=name,
        spec=spec or SPEC,
        model=model,
        model_name=model,
        detail=detail or {"name": model},
        started_at="2020",
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "trials.sqlite"


def test_the_table_is_ordered_whatever_was_written_first(path):
    with TrialStore(path, write=True) as store:
        begin(store)
        store.add("s", "m", items=[item("b", 1, w=2), item("a", 0, w=1)])
        store.add(
            "s", "m", trials=[trial("b", "b"), trial("a", "b"), trial("b"), trial("a", rep=1), trial("a")]
        )
        frame = store.frame("s", "m")
    keys = list(zip(frame["item_id"], frame["arm"], frame["rep"], frame["w"], strict=True))
    assert keys == [
        ("a", "direct", 0, 1),
        ("a", "direct", 1, 1),
        ("a", "b", 0, 1),
        ("b", "direct", 0, 2),
        ("b", "b", 0, 2),
    ]
    # Columns that are empty throughout are left out.
    assert not {"difficulty", "completion", "cost", "error"} & set(frame.columns)


def test_a_unit_is_written_whole_or_not_at_all(path):
    with TrialStore(path, write=True) as store:
        begin(store)
        store.add("s", "m", trials=[trial("a")])
        with pytest.raises(WhypromptError, match="UNIQUE"):
            store.add("s", "m", trials=[trial("b"), trial("c"), trial("a")])
        assert store.done_trials("s", "m") == {("a", "direct", 0)}
        store.add("s", "m", trials=[trial("b"), trial("c")])
        assert len(store.done_trials("s", "m")) == 3


def test_trials_are_apart_by_study_and_model(path):
    with TrialStore(path, write=True) as store:
        begin(store)
        store.add("s", "m", trials=[trial()])
        begin(store, model="m2")
        begin(store, study="s2", spec={**SPEC, "reps": 2})
        assert store.done_trials("s", "m2") == set()
        assert store.done_trials("s2", "m") == set()
        store.add("s", "m2", trials=[trial()])
        assert store.latest("n") == ("s2", "m")
        begin(store, model="m2")
        assert store.latest("n") == ("s", "m2")


def test_changes_are_named(path):
    with TrialStore(path, write=True) as store:
        assert begin(store) == []
        assert begin(store) == []
        changed = {"arms": {"direct": {"shots": 4}, "c": {"x": "y" * 99}}, "reps": 1}
        assert begin(store, study="s2", spec=changed) == [
            "study 'n' changed: arms.direct.shots: 3 -> 4",
            "study 'n' changed: arms.b: {} -> (absent)",
            f"study 'n' changed: arms.c.x: (absent) -> \"{'y' * 36}...",
        ]
        assert begin(store, study="s3", name="another") == []
        assert begin(store, model="m2", detail={"name": "m2", "dtype": "f16"}) == [
            'model changed: name: "m" -> "m2"',
            'model changed: dtype: (absent) -> "f16"',
        ]


def test_a_second_writer_is_refused_and_readers_are_not(path):
    with TrialStore(path, write=True) as store:
        begin(store)
        store.add("s", "m", items=[item()], trials=[trial()])
        with pytest.raises(StoreError, match="another process is writing to"):
            TrialStore(path, write=True)
        code = f"""
            from pathlib import Path
            from whyprompt.errors import StoreError
            from whyprompt.trials.store import TrialStore
            path = Path({str(path)!r})
            try:
                TrialStore(path, write=True)
            except StoreError as error:
                print(error.exit_code, error.message.startswith("another process is writing"))
            with TrialStore(path, write=False) as reader:
                print(len(reader.frame("s", "m")))
            """
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
        )
        assert run.stdout.split() == ["2", "True", "1"]
        store.add("s", "m", trials=[trial("b")])
    TrialStore(path, write=True).close()


def test_a_reader_cannot_write(path):
    with TrialStore(path, write=True) as store:
        begin(store)
    with TrialStore(path, write=False) as store, pytest.raises(StoreError, match="readonly"):
        store.add("s", "m", trials=[trial()])


def test_a_write_lock_of_another_program_is_named(path):
    with TrialStore(path, write=True) as store:
        begin(store)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        store._db.execute("PRAGMA busy_timeout = 10")
        with pytest.raises(StoreError, match="another process is writing to"):
            store.add("s", "m", trials=[trial()])
        other.execute("ROLLBACK")
        other.close()
        store.add("s", "m", trials=[trial()])
        assert len(store.done_trials("s", "m")) == 1


def test_a_full_disk_keeps_what_was_there(path):
    # SQLite's own limit on pages raises what a full disk raises: SQLITE_FULL.
    with TrialStore(path, write=True) as store:
        begin(store)
        store.add("s", "m", trials=[trial("a")])
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        big = [trial(f"x{i}", log_prob=-1.0, **{f"o{k}": 0.5 for k in range(200)}) for i in range(50)]
        with pytest.raises(WhypromptError, match="the disk is full") as caught:
            store.add("s", "m", trials=big)
        assert caught.value.exit_code == 1
        assert "run again: it goes on" in caught.value.hint
        assert store.done_trials("s", "m") == {("a", "direct", 0)}
        store._db.execute("PRAGMA max_page_count = 100000")
        store.add("s", "m", trials=big)
        assert len(store.done_trials("s", "m")) == 51


def test_a_real_limit_on_the_files_size_keeps_what_was_there(path):
    code = f"""
        import resource
        from pathlib import Path
        from whyprompt.errors import WhypromptError
        import tests_store as t
        path = Path({str(path)!r})
        store = t.TrialStore(path, write=True)
        t.begin(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
        done = 0
        try:
            for i in range(10_000):
                store.add("s", "m", trials=[t.trial(f"x{{i}}-{{k}}") for k in range(20)])
                done += 20
        except WhypromptError as error:
            print(done, error.exit_code, error.message)
        """
    here = path.parent.parent / "tests_store.py"
    here.write_bytes(Path(__file__).read_bytes())  # this file, importable there
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        cwd=here.parent,
    )
    done, code, message = run.stdout.split(maxsplit=2)
    assert (code, int(done) > 0) == ("1", True), run.stdout
    assert "could not be" in message
    with TrialStore(path, write=True) as store:
        assert len(store.done_trials("s", "m")) == int(done)
        store.add("s", "m", trials=[trial("more")])
        assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_is_no_store(tmp_path):
    with pytest.raises(StoreError, match="no store at"):
        TrialStore(tmp_path / "absent.sqlite", write=False)
    text = tmp_path / "text.sqlite"
    text.write_text("this is no database, and longer than its header would be" * 9)
    for write in (True, False):
        with pytest.raises(StoreError, match="is not a store of trials"):
            TrialStore(text, write=write)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    for write in (True, False):
        with pytest.raises(StoreError, match="an SQLite file, but no store of trials"):
            TrialStore(other, write=write)
    with sqlite3.connect(other) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="is a store of version 99, this whyprompt reads version 2"):
        TrialStore(other, write=True)
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        TrialStore(tmp_path / "folder.sqlite", write=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"the folder .* cannot be made"):
        TrialStore(tmp_path / "file" / "trials.sqlite", write=True)


def test_a_failed_opening_leaves_no_lock(tmp_path):
    text = tmp_path / "trials.sqlite"
    text.write_text("this is no database, and longer than its header would be" * 9)
    with pytest.raises(StoreError):
        TrialStore(text, write=True)
    text.unlink()
    TrialStore(text, write=True).close()


def test_a_study_that_was_never_run(path):
    with TrialStore(path, write=True) as store, pytest.raises(StoreError, match="no trials of study 'n'"):
        store.latest("n")


# --------------------------------------------------------------------- what a place allows and keeps
def filled(path, n=3):
    with TrialStore(path, write=True) as store:
        begin(store)
        store.add("s", "m", items=[item(f"i{k}", k) for k in range(n)])
        store.add("s", "m", trials=[trial(f"i{k}") for k in range(n)])
    return path


def test_a_closed_store_is_one_file_and_a_reader_makes_no_other(path):
    filled(path)
    assert path.read_bytes()[18:20] == b"\1\1"  # not in the mode that needs files beside it
    with TrialStore(path, write=False) as store:
        assert len(store.frame("s", "m")) == 3
        assert {f.name for f in path.parent.iterdir()} == {"trials.sqlite", "trials.lock"}
    assert {f.name for f in path.parent.iterdir()} == {"trials.sqlite", "trials.lock"}


def read_only(folder, code):
    """Run Python where a folder may only be read: a mount of its own, which root obeys too."""
    mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    apart = [UNSHARE, "-m", "sh", "-c"]
    if subprocess.run([*apart, mount], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a folder read-only")
    command = [*apart, f'{mount} && exec "$@"', "sh", sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


needs_mounts = pytest.mark.skipif(UNSHARE is None, reason="no unshare here")
READ = """
from pathlib import Path
from whyprompt.trials.store import TrialStore
with TrialStore(Path({path!r}), write=False) as store:
    print(len(store.frame("s", "m")))
"""


@needs_mounts
def test_a_store_on_a_place_that_may_only_be_read_is_read(path):
    filled(path)
    run = read_only(path.parent, READ.format(path=str(path)))
    assert run.stdout == "3\n", run.stderr


@needs_mounts
def test_the_store_of_a_killed_run_is_read_there_too(path):
    code = f"""
        import os, signal
        from pathlib import Path
        import tests_store as t
        t.filled(Path({str(path)!r}))
        store = t.TrialStore(Path({str(path)!r}), write=True)
        store.add("s", "m", items=[t.item("more", 9)], trials=[t.trial("more")])
        os.kill(os.getpid(), signal.SIGKILL)
        """
    here = path.parent.parent / "tests_store.py"
    here.write_bytes(Path(__file__).read_bytes())
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, cwd=here.parent)
    run = read_only(path.parent, READ.format(path=str(path)))
    assert run.stdout == "4\n", run.stderr


def test_a_reader_at_the_moment_of_closing_costs_nothing(path):
    with TrialStore(path, write=True) as store:
        begin(store)
        store.add("s", "m", items=[item("a")], trials=[trial("a")])
        reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM trials").fetchone() == (1,)
    assert reader.execute("SELECT count(*) FROM trials").fetchone() == (1,)
    reader.close()
    with TrialStore(path, write=True) as store:
        store.add("s", "m", items=[item("b", 1)], trials=[trial("b")])
    with TrialStore(path, write=False) as store:
        assert len(store.frame("s", "m")) == 2


def test_readers_see_whole_units_while_writers_come_and_go(path):
    filled(path, 0)
    seen, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            with TrialStore(path, write=False) as store:
                seen.append(len(store.done_trials("s", "m")))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for n in range(40):
            with TrialStore(path, write=True) as store:
                store.add("s", "m", trials=[trial(f"{n}-{k}") for k in range(10)])
    finally:
        stop.set()
        thread.join()
    assert seen == sorted(seen)
    assert all(n % 10 == 0 for n in seen)
    assert len(set(seen)) > 3


def test_a_store_that_is_deleted_moved_or_replaced_under_a_run_is_missed(path):
    for name, change in {
        "deleted": lambda: shutil.rmtree(path.parent),
        "moved": lambda: path.parent.rename(path.parent.with_name("moved")),
        "replaced": lambda: (path.unlink(), shutil.copy(__file__, path)),
    }.items():
        with TrialStore(path, write=True) as store:
            begin(store, study=name)
            store.add(name, "m", trials=[trial("a")])
            store.check_there()
            change()
            with pytest.raises(StoreError, match="was deleted, moved or replaced") as caught:
                store.add(name, "m", trials=[trial("b")])
            assert caught.value.exit_code == 2
        # Closing a lost store takes nothing away from who has its place now.
        assert path.exists() == (name == "replaced")


@pytest.mark.parametrize("deep", [True, False])
def test_a_store_in_which_nothing_was_begun_is_not_left_behind(tmp_path, deep):
    folder = tmp_path / "runs" / "name"
    if not deep:
        folder.mkdir(parents=True)
        (folder / "mine.txt").write_text("x")
    store = TrialStore(folder / "trials.sqlite", write=True)
    assert (folder / "trials.sqlite").exists()
    store.close()
    left = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*")}
    assert left == (set() if deep else {"runs", "runs/name", "runs/name/mine.txt"})


def test_what_took_the_place_of_a_store_in_which_nothing_was_begun_stays(path):
    store = TrialStore(path, write=True)
    path.unlink()
    path.write_text("another's")
    store.close()
    assert path.read_text() == "another's"


def test_a_store_that_another_filled_before_the_lock_was_taken_stays(path, monkeypatch):
    real = store_module.lock_for

    def late(place):
        monkeypatch.setattr(store_module, "lock_for", real)
        filled(place)
        return real(place)

    monkeypatch.setattr(store_module, "lock_for", late)
    TrialStore(path, write=True).close()
    with TrialStore(path, write=False) as store:
        assert len(store.frame("s", "m")) == 3


def test_a_store_that_was_there_stays(path):
    filled(path)
    TrialStore(path, write=True).close()
    with TrialStore(path, write=False) as store:
        assert len(store.frame("s", "m")) == 3


def test_a_store_that_is_just_being_made_has_no_version_yet(path):
    path.parent.mkdir()
    path.touch()
    with pytest.raises(StoreError, match="holds no trials yet") as caught:
        TrialStore(path, write=False)
    assert "wait for the run that is starting" in caught.value.hint


def test_another_versions_store_is_left_as_it_is(path):
    filled(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="version 99"):
        TrialStore(path, write=True)
    assert path.read_bytes() == before


def test_what_changed_is_told_by_the_order_of_runs_not_by_the_clock(path):
    def run(store, shots, model, clock):
        return store.begin(
            study=f"s{shots}",
            name="n",
            spec={"arms": {"direct": {"shots": shots}}},
            model=model,
            model_name=model,
            detail={"name": model},
            started_at=clock,
        )

    with TrialStore(path, write=True) as store:
        run(store, 1, "m1", "2020")
        run(store, 2, "m2", "2030")
        run(store, 1, "m1", "2021")  # the clock was put back, and the first version was run again
        assert run(store, 3, "m3", "2022") == [
            "study 'n' changed: arms.direct.shots: 1 -> 3",
            'model changed: name: "m1" -> "m3"',
        ]


@pytest.mark.parametrize("damage", ["", "{", "[1]", "null", "\0\0", '{"a": '])
@pytest.mark.parametrize(
    ("table", "column", "what"),
    [
        ("trials", "outcomes", "outcomes of item 'i0' under arm 'direct'"),
        ("items", "covariates", "covariates of item 'i0'"),
        ("studies", "spec", "the specification of the study"),
    ],
)
def test_a_damaged_value_is_named(path, table, column, what, damage):
    filled(path)
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE {table} SET {column} = ?", (damage,))  # noqa: S608 - names of this test
    db.close()
    with TrialStore(path, write=False) as store, pytest.raises(StoreError) as caught:
        store.frame("s", "m")
    assert caught.value.message == f"{path} is damaged: {what} is not a JSON object"
    assert "move it aside" in caught.value.hint
    if table == "studies":
        with TrialStore(path, write=True) as store, pytest.raises(StoreError, match="is damaged"):
            begin(store, study="s2")


def test_text_that_is_no_text_is_named(path):
    filled(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE trials SET outcomes = CAST(x'ff00fe' AS TEXT)")
    db.close()
    with TrialStore(path, write=False) as store, pytest.raises(StoreError, match="is damaged: Could not"):
        store.frame("s", "m")


def test_the_file_is_for_whom_the_umask_says(path):
    before = os.umask(0o077)
    try:
        filled(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o077 == 0
