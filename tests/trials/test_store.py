"""The store: whole units, one writer, readable messages. The kill test is in test_kill.py."""

import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from whyprompt.errors import StoreError, WhypromptError
from whyprompt.trials.store import ItemRow, TrialRow, TrialStore

SPEC = {"arms": {"direct": {"shots": 3}, "b": {}}, "reps": 1}


def trial(item="a", arm="direct", rep=0, **outcomes):
    return TrialRow(
        item_id=item,
        arm=arm,
        rep=rep,
        unit=0,
        prompt="p",
        prompt_tokens=1,
        completion=None,
        completion_tokens=None,
        outcomes=outcomes or {"log_prob": -1.0},
        temperature=0.0,
        seed=1,
        latency_s=0.1,
        started_at="2020",
    )


def item(item_id="a", position=0, **covariates):
    return ItemRow(
        item_id=item_id,
        position=position,
        task_type="t",
        difficulty=None,
        cluster=item_id,
        question="q",
        answer="x",
        covariates=covariates,
    )


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
        store.add("s", "m", [item("b", 1, w=2), item("a", 0, w=1)])
        store.add("s", "m", [trial("b", "b"), trial("a", "b"), trial("b"), trial("a", rep=1), trial("a")])
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
        store.add("s", "m", [trial("a")])
        with pytest.raises(WhypromptError, match="UNIQUE"):
            store.add("s", "m", [trial("b"), trial("c"), trial("a")])
        assert store.done_trials("s", "m") == {("a", "direct", 0)}
        store.add("s", "m", [trial("b"), trial("c")])
        assert len(store.done_trials("s", "m")) == 3


def test_trials_are_apart_by_study_and_model(path):
    with TrialStore(path, write=True) as store:
        begin(store)
        store.add("s", "m", [trial()])
        begin(store, model="m2")
        begin(store, study="s2", spec={**SPEC, "reps": 2})
        assert store.done_trials("s", "m2") == set()
        assert store.done_trials("s2", "m") == set()
        store.add("s", "m2", [trial()])
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
        store.add("s", "m", [item(), trial()])
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
        store.add("s", "m", [trial("b")])
    TrialStore(path, write=True).close()


def test_a_reader_cannot_write(path):
    with TrialStore(path, write=True) as store:
        begin(store)
    with TrialStore(path, write=False) as store, pytest.raises(StoreError, match="readonly"):
        store.add("s", "m", [trial()])


def test_a_write_lock_of_another_program_is_named(path):
    with TrialStore(path, write=True) as store:
        begin(store)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        store._db.execute("PRAGMA busy_timeout = 10")
        with pytest.raises(StoreError, match="another process is writing to"):
            store.add("s", "m", [trial()])
        other.execute("ROLLBACK")
        other.close()
        store.add("s", "m", [trial()])
        assert len(store.done_trials("s", "m")) == 1


def test_a_full_disk_keeps_what_was_there(path):
    # SQLite's own limit on pages raises what a full disk raises: SQLITE_FULL.
    with TrialStore(path, write=True) as store:
        begin(store)
        store.add("s", "m", [trial("a")])
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        big = [trial(f"x{i}", log_prob=-1.0, **{f"o{k}": 0.5 for k in range(200)}) for i in range(50)]
        with pytest.raises(WhypromptError, match="the disk is full") as caught:
            store.add("s", "m", big)
        assert caught.value.exit_code == 1
        assert "run again: it goes on" in caught.value.hint
        assert store.done_trials("s", "m") == {("a", "direct", 0)}
        store._db.execute("PRAGMA max_page_count = 100000")
        store.add("s", "m", big)
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
                store.add("s", "m", [t.trial(f"x{{i}}-{{k}}") for k in range(20)])
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
        store.add("s", "m", [trial("more")])
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
    with pytest.raises(StoreError, match="is a store of version 99, this whyprompt reads version 1"):
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
