"""Trials written in the exchange format every_eval_ever: a line a trial and outcome, and their aggregate."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whyprompt._files import whole_file, write_json
from whyprompt._version import __version__
from whyprompt.errors import DataError
from whyprompt.trials.reading.fields import number_of, whole_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

SCHEMA = "0.3.0"
"""The version of the schema that is written."""

# Columns of a trial table that have a field of their own; the rest are metadata.
_FIELDS = (
    *("item_id", "question", "answer", "target", "choices", "prompt", "completion", "model", "error"),
    *("prompt_tokens", "completion_tokens", "latency_s"),
)
_ROWS = 1024
_PART = re.compile(r"[^\w.\-]+")


@dataclass
class _Sum:
    """The scores of an arm in one outcome, by item."""

    items: dict[str, list[float]] = field(default_factory=dict)
    missing: int = 0
    binary: bool = True

    def add(self, item: str, score: float | None) -> None:
        if score is None:
            self.missing += 1
            return
        found = self.items.setdefault(item, [0.0, 0.0])
        found[0] += score
        found[1] += 1
        self.binary &= score in {0.0, 1.0}

    def details(self) -> dict[str, Any]:
        """Give the mean over trials; its error is that of the means of items."""
        n = sum(count for _, count in self.items.values())
        out: dict[str, Any] = {
            "score": math.fsum(total for total, _ in self.items.values()) / n,
            "details": {"trials": str(int(n)), "missing": str(self.missing)},
            "uncertainty": {"num_samples": len(self.items)},
        }
        if (k := len(self.items)) > 1:
            means = [total / count for total, count in self.items.values()]
            centre = math.fsum(means) / k
            error = math.sqrt(math.fsum((m - centre) ** 2 for m in means) / (k - 1) / k)
            out["uncertainty"]["standard_error"] = {
                "value": error,
                "method": "analytic, of the means of items",
            }
        return out


@dataclass
class _Sheet:
    """The samples of one model while they are written."""

    file: BinaryIO
    evaluation_id: str
    digest: Any = field(default_factory=hashlib.sha256)
    rows: int = 0
    sums: dict[tuple[str, str], _Sum] = field(default_factory=dict)

    def write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"
        self.file.write(line)
        self.digest.update(line)
        self.rows += 1


def write(
    table: Any,  # noqa: ANN401 - a pyarrow table, or a pandas frame
    folder: Path,
    *,
    outcomes: Sequence[str],
    evaluation: str,
    model: str = "unknown",
    lower_is_better: Sequence[str] = (),
    organization: str = "unknown",
    when: float | None = None,
) -> list[Path]:
    """Write a trial table as samples and aggregate, one pair of files for each model.

    A trial has a line for each outcome that it has. The schema has no field for arms and repetitions: a
    sample's metadata hold them (``arm``, ``rep``, and every further column), and each arm has results of its
    own. A missing outcome has no line, since a score is a number there; the aggregate counts them.

    Parameters
    ----------
    table : pyarrow.Table or pandas.DataFrame
        A row a trial: ``item_id``, ``arm`` and the outcomes; and, where there, ``rep``, ``question``,
        ``answer`` or ``target``, ``choices``, ``prompt``, ``completion``, ``model``, ``prompt_tokens``,
        ``completion_tokens``, ``latency_s`` and ``error``.
    folder : Path
        Where ``data/EVALUATION/DEVELOPER/MODEL`` is made.
    outcomes : sequence of str
        The columns that are scores.
    evaluation : str
        The name of the evaluation.
    model : str
        The model where no column names it.
    lower_is_better : sequence of str
        Outcomes of which less is better.
    organization : str
        Who ran it.
    when : float, optional
        Seconds since 1970 of the record; now by default. The same gives the same files.

    Returns
    -------
    list of Path
        The aggregates; the samples of each lie beside it.

    Raises
    ------
    DataError
        If a column is not there, or an outcome is nowhere a number.
    """
    import pyarrow as pa

    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    for column in ("item_id", "arm", *outcomes):
        if column not in table.column_names:
            raise DataError(
                f"the trials have no column {column!r}", hint=f"they have {', '.join(table.column_names)}"
            )
    stamp = f"{time.time() if when is None else when:.6f}"
    sheets: dict[str, tuple[Path, _Sheet]] = {}
    with ExitStack() as stack:
        for trial in _rows(table):
            named = str(trial.get("model") or model)
            if named not in sheets:
                evaluation_id = f"{evaluation}/{named}/{stamp}"
                path = _place(folder, evaluation, named, evaluation_id)
                path.parent.mkdir(parents=True, exist_ok=True)
                sheets[named] = (path, _Sheet(stack.enter_context(whole_file(path)), evaluation_id))
            _put(sheets[named][1], trial, outcomes, evaluation, named)
        for outcome in outcomes:
            if not any(
                s.items for _, sheet in sheets.values() for (_, o), s in sheet.sums.items() if o == outcome
            ):
                raise DataError(
                    f"the column {outcome!r} of the trials is nowhere a number", hint="name an outcome"
                )
    made = []
    for named, (path, sheet) in sheets.items():
        aggregate = path.with_name(path.name.replace("_samples.jsonl", ".json"))
        write_json(
            aggregate,
            {
                "schema_version": SCHEMA,
                "evaluation_id": sheet.evaluation_id,
                "retrieved_timestamp": stamp,
                "source_metadata": {
                    "source_type": "evaluation_run",
                    "source_organization_name": organization,
                    "evaluator_relationship": "other",
                },
                "eval_library": {"name": "whyprompt", "version": __version__},
                "model_info": {
                    "name": named,
                    "id": named,
                    "additional_details": {"deployment_type": "unknown", "model_availability": "unknown"},
                },
                "evaluation_results": list(_results(sheet, evaluation, lower_is_better)),
                "detailed_evaluation_results": {
                    "format": "jsonl",
                    "file_path": path.relative_to(folder).as_posix(),
                    "hash_algorithm": "sha256",
                    "checksum": sheet.digest.hexdigest(),
                    "total_rows": sheet.rows,
                },
            },
        )
        made.append(aggregate)
    return made


def _rows(table: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - a pyarrow table
    for batch in table.to_batches(max_chunksize=_ROWS):
        yield from batch.to_pylist()


def _place(folder: Path, evaluation: str, model: str, evaluation_id: str) -> Path:
    """Give the file of samples, where the format's own repository has it; its name is of the run."""
    developer, _, rest = model.rpartition("/")
    name = uuid.UUID(bytes=hashlib.sha256(evaluation_id.encode()).digest()[:16], version=4)
    parts = (_PART.sub("_", part) or "unknown" for part in (evaluation, developer, rest))
    return folder.joinpath("data", *parts) / f"{name}_samples.jsonl"


def _result_id(evaluation: str, arm: str, outcome: str) -> str:
    return f"{evaluation}/{arm}/{outcome}"


def _put(
    sheet: _Sheet, trial: Mapping[str, Any], outcomes: Sequence[str], evaluation: str, model: str
) -> None:
    arm, item = str(trial["arm"]), str(trial["item_id"])
    answer = trial.get("target", trial.get("answer"))
    asked = {
        "raw": str(trial.get("question") or ""),
        "formatted": _text(trial.get("prompt")),
        "reference": [str(answer)] if answer not in {None, ""} else [],
        "choices": _list(trial.get("choices")),
    }
    same = json.dumps(
        {"raw": asked["raw"], "reference": asked["reference"]}, sort_keys=True, separators=(",", ":")
    )
    latency = number_of(trial.get("latency_s"))
    said = _text(trial.get("completion"))
    record: dict[str, Any] = {
        "schema_version": SCHEMA,
        "evaluation_id": sheet.evaluation_id,
        "model_id": model,
        "evaluation_name": evaluation,
        "sample_id": item,
        "sample_hash": hashlib.sha256(same.encode("utf-8", "replace")).hexdigest(),
        "interaction_type": "single_turn",
        "input": asked,
        "output": {"raw": [] if said is None else [said]},
        "answer_attribution": [],
        "token_usage": _usage(trial),
        "performance": None if latency is None else {"latency_ms": 1000 * latency},
        "error": _text(trial.get("error")),
        "metadata": {
            column: value if isinstance(value, str) else json.dumps(value, default=str)
            for column, value in trial.items()
            if column not in {*_FIELDS, *outcomes} and value is not None and value == value  # noqa: PLR0124 - no NaN
        },
    }
    for outcome in outcomes:
        value = trial[outcome]
        score = float(value) if isinstance(value, bool) else number_of(value)
        sheet.sums.setdefault((arm, outcome), _Sum()).add(item, score)
        if score is not None:
            sheet.write(
                {
                    **record,
                    "evaluation_result_id": _result_id(evaluation, arm, outcome),
                    "evaluation": {"score": score, "is_correct": score == 1.0},
                }
            )


def _usage(trial: Mapping[str, Any]) -> dict[str, int] | None:
    sent, said = whole_of(trial.get("prompt_tokens")), whole_of(trial.get("completion_tokens"))
    if sent is None or said is None:
        return None
    return {"input_tokens": sent, "output_tokens": said, "total_tokens": sent + said}


def _text(value: object) -> str | None:
    return None if value is None or value != value else str(value)  # noqa: PLR0124 - no NaN


def _list(value: object) -> list[str] | None:
    if isinstance(value, str) and value.startswith("["):
        value = json.loads(value)
    return [str(one) for one in value] if isinstance(value, list | tuple) and value else None


def _results(sheet: _Sheet, evaluation: str, lower_is_better: Sequence[str]) -> Iterator[dict[str, Any]]:
    for (arm, outcome), found in sheet.sums.items():
        if found.items:
            kind = {"score_type": "binary"}
            if not found.binary:
                kind = {"score_type": "continuous", "min_score": "-Infinity", "max_score": "Infinity"}
            yield {
                "evaluation_result_id": _result_id(evaluation, arm, outcome),
                "evaluation_name": evaluation,
                "source_data": {"dataset_name": evaluation, "source_type": "other"},
                "metric_config": {
                    "metric_id": outcome,
                    "metric_name": outcome,
                    "lower_is_better": outcome in lower_is_better,
                    **kind,
                },
                "score_details": found.details(),
                "generation_config": {"additional_details": {"arm": arm}},
            }
