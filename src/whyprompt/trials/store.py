"""The store of trials: SQLite, one row a trial, complete at every moment.

A trial is unique on (study fingerprint, model fingerprint, item, arm, repetition). Trials are written a unit
at a time, each unit in one transaction, so a process killed at any moment leaves whole units behind, and the
next run computes the missing units exactly as an undisturbed run would have. What a model writes in a trial
whose unit is not done is kept text by text, until the trial is there and has it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any, Self

from whyprompt._files import lock_for, whole_file
from whyprompt.errors import StoreError, WhypromptError
from whyprompt.trials.models.generation import Completion
from whyprompt.trials.writing import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import filelock
    import pandas as pd

    from whyprompt.trials.items.item import Item
    from whyprompt.trials.plan import Trial
    from whyprompt.trials.writing import Key, Part, Texts

_VERSION = 2
_ANEW = "move it aside and run the study again: whyprompt run STUDY"
_SCHEMA = """
CREATE TABLE studies (
    fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, spec TEXT NOT NULL, started_at TEXT NOT NULL
) STRICT;
CREATE TABLE models (fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
CREATE TABLE items (
    study TEXT NOT NULL REFERENCES studies, model TEXT NOT NULL REFERENCES models,
    item_id TEXT NOT NULL, position INTEGER NOT NULL, task_type TEXT NOT NULL, difficulty REAL,
    cluster TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, covariates TEXT NOT NULL,
    PRIMARY KEY (study, model, item_id)
) STRICT;
CREATE TABLE trials (
    study TEXT NOT NULL REFERENCES studies, model TEXT NOT NULL REFERENCES models,
    item_id TEXT NOT NULL, arm TEXT NOT NULL, rep INTEGER NOT NULL, unit INTEGER NOT NULL,
    prompt TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion TEXT, completion_tokens INTEGER,
    finish TEXT, reasoning_tokens INTEGER, reasoning_finish TEXT,
    outcomes TEXT NOT NULL, extracted TEXT NOT NULL, temperature REAL NOT NULL, seed INTEGER NOT NULL,
    cost REAL, latency_s REAL NOT NULL, started_at TEXT NOT NULL, error TEXT, answered_by TEXT,
    UNIQUE (study, model, item_id, arm, rep)
) STRICT;
CREATE TABLE texts (
    study TEXT NOT NULL REFERENCES studies, model TEXT NOT NULL REFERENCES models,
    item_id TEXT NOT NULL, arm TEXT NOT NULL, rep INTEGER NOT NULL, part TEXT NOT NULL,
    text TEXT NOT NULL, tokens INTEGER NOT NULL, finish TEXT NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (study, model, item_id, arm, rep, part)
) STRICT;
CREATE TABLE runs (
    study TEXT NOT NULL REFERENCES studies, model TEXT NOT NULL REFERENCES models, started_at TEXT NOT NULL
) STRICT;
"""


_THE_TRIAL = "study = ? AND model = ? AND item_id = ? AND arm = ? AND rep = ?"
# What follows an outcome's name in the column of what it took for the answer.
EXTRACTED = "_extracted"
# The columns that an item and a trial have under the same names.
_OF_ITEM = ("item_id", "task_type", "difficulty", "question", "answer")
_OF_TRIAL = (
    *("arm", "rep", "unit", "completion", "completion_tokens", "finish"),
    *("reasoning_tokens", "reasoning_finish", "temperature", "seed", "latency_s"),
    *("cost", "error", "answered_by", "started_at"),
)
# The columns of the table: then come an item's covariates, the middle ones, the outcomes, and the last ones.
_FIRST = ("item_id", "arm", "rep", "task_type", "difficulty")
_WRITTEN = ("reasoning_tokens", "reasoning_finish", "completion", "completion_tokens", "finish")
_MIDDLE = ("prompt", "prompt_tokens", *_WRITTEN)
_LAST = (
    *("temperature", "cluster", "cost", "latency_s", "started_at", "model", "answered_by", "seed", "unit"),
    "error",
)


def _item_row(position: int, item: Item) -> dict[str, Any]:
    return {
        **{name: getattr(item, name) for name in _OF_ITEM},
        "position": position,
        "cluster": item.cluster or item.item_id,
        "covariates": json.dumps(dict(item.covariates), ensure_ascii=False),
    }


def _trial_row(trial: Trial) -> dict[str, Any]:
    ids = () if trial.encoded is None else trial.encoded.ids
    return {
        "item_id": trial.item.item_id,
        **{name: getattr(trial, name) for name in _OF_TRIAL},
        "prompt": trial.prompt.text,
        "prompt_tokens": len(ids) if trial.prompt_tokens is None else trial.prompt_tokens,
        "outcomes": json.dumps(dict(trial.outcomes), ensure_ascii=False),
        "extracted": json.dumps(dict(trial.extracted), ensure_ascii=False),
    }


class TrialStore:
    """An open store.

    Parameters
    ----------
    path : Path
        The SQLite file.
    write : bool
        Whether to write. One process at a time may; any number may read, from a place that may not be
        written too. A new store in which no study is begun is not left behind.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self.path = path
        self._lock: filelock.BaseFileLock | None = None
        self._made: list[Path] = []
        self._identity: tuple[int, int] | None = None
        if write:
            absent = [p for p in (path, path.with_suffix(".lock"), *path.parents) if not p.exists()]
            self._lock = lock_for(path)
            # Asked again under the lock: another process may have filled the store meanwhile.
            self._made = [] if path.exists() else absent
        elif not path.is_file():
            raise StoreError(f"no store at {path}", hint="run the study first: whyprompt run STUDY")
        try:
            with _errors(path):
                self._db = self._opened(write=write)
            self._identity = _identity(path)
        except BaseException:
            self._release()
            raise

    def _opened(self, *, write: bool) -> sqlite3.Connection:
        # A store only read is opened so that nothing here can change it.
        target = str(self.path) if write else f"{self.path.absolute().as_uri()}?mode=ro"
        # Judges behind endpoints write from a thread of their own where a notebook's loop is running, while
        # this one waits.
        db = sqlite3.connect(target, uri=not write, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db, write=write)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection, *, write: bool) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables:
                raise StoreError(f"{self.path} is an SQLite file, but no store of trials")
            if not write:
                raise StoreError(
                    f"{self.path} holds no trials yet",
                    hint="run the study first, or wait for the run that is starting: whyprompt run STUDY",
                )
        elif version != _VERSION:
            raise StoreError(
                f"{self.path} is a store of version {version}, this whyprompt reads version {_VERSION}",
                hint=_ANEW,
            )
        if write:
            # While trials are written, others read what is complete; close() takes it back.
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let others write."""
        if self._lock is not None:
            # In the writer's mode a file can only be read where one may write beside it. Where a reader is in
            # it just now, it stays so until the next run.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()
        self._release()

    def _release(self) -> None:
        """Take away what opening made, where no study was begun, and give the lock back."""
        if self._identity in {None, _identity(self.path)}:
            for place in self._made:
                # A folder that holds anything else stays.
                with contextlib.suppress(OSError):
                    place.rmdir() if place.is_dir() else place.unlink()
        if self._lock is not None:
            self._lock.release()

    def check_there(self) -> None:
        """Check that what is written goes where it will be looked for.

        Raises
        ------
        StoreError
            If the file was deleted, moved or replaced since it was opened: the system would let a process
            write on into a file that has no name.
        """
        if _identity(self.path) != self._identity:
            raise StoreError(
                f"{self.path} was deleted, moved or replaced while this run was writing to it",
                hint="what was written since is lost: run the study again, and leave its folder in place",
            )

    def begin(
        self,
        *,
        study: str,
        name: str,
        spec: Mapping[str, Any],
        model: str,
        model_name: str,
        detail: Mapping[str, Any],
        started_at: str,
    ) -> list[str]:
        """Announce a study and a model, and say what changed since they were last here.

        Returns
        -------
        list of str
            One line for each change; empty where nothing changed or nothing was here.
        """
        # By the order of the runs: a clock may have been put back.
        studies = self.rows(
            "SELECT s.fingerprint, s.spec FROM runs r JOIN studies s ON s.fingerprint = r.study "
            "WHERE s.name = ? ORDER BY r.rowid",
            name,
        )
        models = self.rows(
            "SELECT m.fingerprint, m.detail FROM runs r JOIN models m ON m.fingerprint = r.model "
            "ORDER BY r.rowid"
        )
        changes: list[str] = []
        if studies and study not in dict(studies):
            before = self._object(studies[-1][1], f"the specification of study {name!r}")
            changes += [f"study {name!r} changed: {line}" for line in _differences(before, spec)]
        if models and model not in dict(models):
            before = self._object(models[-1][1], "the record of the model")
            changes += [f"model changed: {line}" for line in _differences(before, detail)]
        with _errors(self.path), self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO studies VALUES (?, ?, ?, ?)",
                (study, name, json.dumps(spec), started_at),
            )
            self._db.execute(
                # The same files under another name are the same model: the name is the latest.
                "INSERT INTO models VALUES (?, ?, ?) ON CONFLICT (fingerprint) "
                "DO UPDATE SET name = excluded.name, detail = excluded.detail",
                (model, model_name, json.dumps(detail)),
            )
            self._db.execute("INSERT INTO runs VALUES (?, ?, ?)", (study, model, started_at))
        self._made = []
        return changes

    def rows(self, query: str, *values: object) -> list[Any]:
        """Give what a query finds."""
        with _errors(self.path):
            return self._db.execute(query, values).fetchall()

    def _object(self, text: str, what: str) -> dict[str, Any]:
        """Read a JSON object that stands in a column."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise StoreError(f"{self.path} is damaged: {what} is not a JSON object", hint=_ANEW)
        return found

    def write_through(self, schema: str) -> None:
        """Add tables where they are not there, and have every change on the disk before it is relied on."""
        with _errors(self.path):
            self._db.executescript(schema)
            self._db.execute("PRAGMA synchronous = FULL")

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Change tables, all of what is done inside the block or nothing."""
        with _errors(self.path), self._transaction():
            yield self._db

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            # A full disk may have rolled it back already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def add(
        self,
        study: str,
        model: str,
        *,
        items: Sequence[tuple[int, Item]] = (),
        trials: Sequence[Trial] = (),
        spent: Sequence[Key] = (),
    ) -> None:
        """Write items, each with its position, and trials, all or none; a trial that failed makes room.

        The texts of trials that are `spent` are needed no more.

        Raises
        ------
        WhypromptError
            If the disk is full or the file cannot be written; the store keeps what it had.
        StoreError
            As :meth:`check_there`.
        """
        with _errors(self.path), self._transaction():
            rows = [("items", _item_row(*item)) for item in items]
            rows += [("trials", _trial_row(trial)) for trial in trials]
            for table, row in rows:
                columns, marks = ", ".join(row), ", ".join("?" * (len(row) + 2))
                if table == "trials":
                    self._db.execute(
                        "DELETE FROM trials WHERE (study, model, item_id, arm, rep) = (?, ?, ?, ?, ?) "
                        "AND error IS NOT NULL",
                        [study, model, row["item_id"], row["arm"], row["rep"]],
                    )
                self._db.execute(
                    f"INSERT INTO {table} (study, model, {columns}) VALUES ({marks})",  # noqa: S608 - fixed names
                    [study, model, *row.values()],
                )
            for key in spent:
                self._db.execute(f"DELETE FROM texts WHERE {_THE_TRIAL}", [study, model, *key])  # noqa: S608 - fixed names
        self.check_there()

    def add_text(self, study: str, model: str, key: Key, part: Part, text: Text) -> None:
        """Keep a text of a trial whose outcomes are not all there yet.

        Raises
        ------
        WhypromptError, StoreError
            As :meth:`add`.
        """
        with _errors(self.path):
            self._db.execute(
                "INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (study, model, *key, part, *text.written, text.seconds),
            )
        self.check_there()

    def texts(self, study: str, model: str) -> Texts:
        """Give the texts of trials whose outcomes are not all there yet."""
        rows = self.rows(
            "SELECT item_id, arm, rep, part, text, tokens, finish, seconds FROM texts "
            "WHERE study = ? AND model = ?",
            study,
            model,
        )
        return {(tuple(r[:3]), r[3]): Text(Completion(*r[4:7]), r[7]) for r in rows}

    def done_items(self, study: str, model: str) -> set[str]:
        """Give the ids of the items that are measured."""
        rows = self.rows("SELECT item_id FROM items WHERE study = ? AND model = ?", study, model)
        return {item for (item,) in rows}

    def done_trials(self, study: str, model: str, *, failed: bool = True) -> set[tuple[str, str, int]]:
        """Give the keys (item, arm, repetition) of the trials that are there; of those without an error."""
        rows = self.rows(
            "SELECT item_id, arm, rep FROM trials WHERE study = ? AND model = ? AND (? OR error IS NULL)",
            *(study, model, failed),
        )
        return set(rows)

    def latest(self, name: str) -> tuple[str, str]:
        """Give the study and model fingerprints of the last run of a study's name.

        Raises
        ------
        StoreError
            If it was never run.
        """
        rows = self.rows(
            "SELECT r.study, r.model FROM runs r JOIN studies s ON s.fingerprint = r.study "
            "WHERE s.name = ? ORDER BY r.rowid DESC LIMIT 1",
            name,
        )
        if not rows:
            raise StoreError(
                f"{self.path} has no trials of study {name!r}", hint="run it first: whyprompt run STUDY"
            )
        return rows[0][0], rows[0][1]

    def model_name(self, model: str) -> str:
        """Give the name under which a model, given by its fingerprint, last wrote here."""
        return str(self.rows("SELECT name FROM models WHERE fingerprint = ?", model)[0][0])

    def frame(self, study: str, model: str) -> pd.DataFrame:
        """Give the trial table.

        Returns
        -------
        pandas.DataFrame
            One row a trial, ordered by item, arm and repetition; columns as in the documentation of the
            trial table. A column that is empty throughout (a difficulty no source gives) is left out.
        """
        import pandas as pd

        with _errors(self.path):
            cursor = self._db.execute(
                "SELECT i.position, i.task_type, i.difficulty, i.cluster, i.covariates, m.name AS model, t.* "
                "FROM trials t JOIN items i ON (i.study, i.model, i.item_id) = (t.study, t.model, t.item_id) "
                "JOIN models m ON m.fingerprint = t.model "
                "WHERE t.study = ? AND t.model = ? ORDER BY i.position, t.rowid",
                (study, model),
            )
            names = [d[0] for d in cursor.description]
            # The joined name of the model comes before the fingerprint of the same column name.
            names[names.index("model", names.index("model") + 1)] = "model_fingerprint"
            raw = [dict(zip(names, row, strict=True)) for row in cursor]
            (text,) = self._db.execute("SELECT spec FROM studies WHERE fingerprint = ?", (study,)).fetchone()
        spec = self._object(text, "the specification of the study")
        arms = {arm: n for n, arm in enumerate(spec.get("arms", ()))}
        raw.sort(key=lambda r: (r["position"], arms.get(r["arm"], len(arms)), r["rep"]))
        rows = [
            {
                **{name: r[name] for name in _FIRST},
                **self._object(r["covariates"], f"covariates of item {r['item_id']!r}"),
                **{name: r[name] for name in _MIDDLE},
                **self._object(r["outcomes"], f"outcomes of item {r['item_id']!r} under arm {r['arm']!r}"),
                **{f"{name}{EXTRACTED}": text for name, text in self._extracted(r).items()},
                **{name: r[name] for name in _LAST},
            }
            for r in raw
        ]
        # A column of what was extracted says by its gaps where nothing was: it stays when all are.
        table = pd.DataFrame(rows)
        return table[[c for c in table.columns if c.endswith(EXTRACTED) or table[c].notna().any()]]

    def _extracted(self, row: dict[str, Any]) -> dict[str, Any]:
        return self._object(row["extracted"], f"what was extracted of item {row['item_id']!r}")


def export(frame: pd.DataFrame, path: Path) -> None:
    """Write a trial table as CSV or Parquet, by the file's extension, whole or not at all.

    Raises
    ------
    StoreError
        If the extension is another, or the folder does not exist.
    """
    check_target(path)
    with whole_file(path) as file:
        if path.suffix.lower() == ".csv":
            frame.to_csv(file, index=False)
        else:
            frame.to_parquet(file, index=False)


def check_target(path: Path) -> None:
    """Refuse (`StoreError`) a file that `export` cannot write: of another extension, or in no folder."""
    if path.suffix.lower() not in {".csv", ".parquet"}:
        raise StoreError(f"{path}: a trial table is exported as .csv or .parquet")
    if not path.parent.is_dir():
        raise StoreError(f"{path}: no such folder: {path.parent}", hint="make it first")


def _identity(path: Path) -> tuple[int, int] | None:
    """Tell a file from any other that has had its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        text, name = str(error), getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL":
            raise WhypromptError(
                f"the disk is full: {path} could not be written",
                hint="free some space and run again: it goes on",
            ) from None
        if name.startswith("SQLITE_IOERR"):
            # A quota or a limit on a file's size shows as this, not as a full disk.
            raise WhypromptError(
                f"{path} could not be read or written: {text} ({name})",
                hint="check the disk, its quota and limits on file size, and run again: it goes on",
            ) from None
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise StoreError(
                f"another process is writing to {path}", hint="wait for it and run again"
            ) from None
        if name in {"SQLITE_NOTADB", "SQLITE_CORRUPT"}:
            raise StoreError(f"{path} is not a store of trials: {text}") from None
        if text.startswith("Could not decode"):
            raise StoreError(f"{path} is damaged: {text}", hint=_ANEW) from None
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
            raise StoreError(
                f"the store {path} cannot be opened: {text}",
                hint="check that you may write it and its folder, or copy the folder to where you may",
            ) from None
        raise WhypromptError(f"the store {path} failed: {text}") from None


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name the leaves that differ, as ``arms.few_shot.shots: 3 -> 4``."""
    a, b = dict(_leaves(before)), dict(_leaves(after))
    return [
        f"{key}: {_short(a, key)} -> {_short(b, key)}"
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    ]


def _short(leaves: Mapping[str, Any], key: str) -> str:
    if key not in leaves:
        return "(absent)"
    text = json.dumps(leaves[key], ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _leaves(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{at}.{key}" if at else str(key))
    elif isinstance(node, list) and node:
        for i, value in enumerate(node):
            yield from _leaves(value, f"{at}[{i}]")
    else:
        yield at, node
