"""The parts of a study that say where its items come from, and what all its parts share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=60)]


class Strict(BaseModel):
    """What every part of a study is: of known keys, and never changed."""

    # Strict: True is no number, and bytes are no text. No setting may be nan or infinite.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        populate_by_name=True,
        strict=True,
        allow_inf_nan=False,
    )


BUILTIN_OUTCOMES = (
    "log_prob",
    "perplexity",
    "exact_match",
    "numeric_match",
    "string_match",
    "token_f1",
    "choice_match",
    "code_match",
    "well_formed",
    "multiple_choice",
    "embedding_similarity",
)

# Columns that every trial table has: no covariate and no outcome may take their names.
BUILTIN_COLUMNS = frozenset(
    [
        "item_id",
        "arm",
        "rep",
        "task_type",
        "difficulty",
        "question_tokens",
        "question_perplexity",
        "prompt",
        "prompt_tokens",
        "completion",
        "completion_tokens",
        "finish",
        "reasoning_tokens",
        "reasoning_finish",
        "temperature",
        "cluster",
        "cost",
        "latency_s",
        "started_at",
        "model",
        "seed",
        "unit",
        "error",
        "answered_by",
    ]
)


_Size = Annotated[int, Field(ge=1, le=100_000)]


class _Source(Strict):
    size: _Size | None = Field(
        default=None,
        description="How many items enter the study. Default: all; where an arm draws examples and shot_pool"
        " is not given either, at most a quarter of each task's is kept out for them.",
    )
    shot_pool: Annotated[
        int,
        Field(
            ge=0,
            le=100_000,
            description="Items kept out of the study, from which worked examples are drawn.",
        ),
    ] = 16
    task_type: Annotated[str | None, Field(description="Name of the task family.")] = None


class ReasoningGymSource(_Source):
    """Items made by a generator of ``reasoning-gym``."""

    source: Literal["reasoning_gym"]
    dataset: str
    size: _Size = Field(default=32, description="How many items enter the study.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of the generator.")
    levels: list[dict[str, Any]] | None = Field(
        default=None,
        min_length=1,
        description="Settings of difficulty 1, 2, ...: items are shared out evenly among them.",
    )
    difficulty: str | None = Field(
        default=None, description="Key of the generator's metadata that measures an item's difficulty."
    )

    @model_validator(mode="after")
    def _one_difficulty(self) -> ReasoningGymSource:
        if self.levels is not None and self.difficulty is not None:
            raise ValueError("'levels' and 'difficulty' both define the difficulty: keep one")
        return self


class Columns(Strict):
    """Which columns of a file or data set hold what."""

    question: str = "question"
    answer: str = "answer"
    item_id: str | None = None
    task_type: str | None = None
    difficulty: str | None = None
    solution: str | None = None
    choices: str | None = None
    cluster: str | None = None
    covariates: list[str] = Field(default_factory=list)

    @field_validator("covariates")
    @classmethod
    def _not_reserved(cls, value: list[str]) -> list[str]:
        taken = next((c for c in value if c in BUILTIN_COLUMNS or c in BUILTIN_OUTCOMES), None)
        if taken is not None:
            raise ValueError(f"{taken!r} is a column of the trial table itself: rename it in the file")
        return value


class FileSource(_Source):
    """Items in a CSV, JSONL or Parquet file."""

    source: Literal["file"]
    path: str
    columns: Columns = Columns()


class HubSource(_Source):
    """Items of a data set on the Hugging Face hub."""

    source: Literal["hub"]
    name: str
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    layout: Literal["columns", "gsm8k", "natural_instructions"] = "columns"
    columns: Columns = Columns()


class Gsm8kSource(_Source):
    """A local file or folder in the layout of GSM8K: ``question``, and ``answer`` ending in ``#### 42``."""

    source: Literal["gsm8k"]
    path: str
    split: str = "test"


class NaturalInstructionsSource(_Source):
    """A local task file, or a folder of them, in the layout of Natural Instructions.

    ``size`` counts the items of each task.
    """

    source: Literal["natural_instructions"]
    path: str
    tasks: list[str] | None = None


ItemSource = Annotated[
    ReasoningGymSource | FileSource | HubSource | Gsm8kSource | NaturalInstructionsSource,
    Field(discriminator="source"),
]
