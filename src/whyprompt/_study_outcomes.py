"""The part of a study that says what is measured of a trial: outcomes, and how a completion is read."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from whyprompt._endpoint_settings import EndpointSettings, on_endpoint
from whyprompt._study_items import BUILTIN_COLUMNS, BUILTIN_OUTCOMES, Name, Strict
from whyprompt._words import did_you_mean

# ------------------------------------------------------------------------- what is read of a completion
ExtractName = Literal["last_number", "first_number", "choice", "code"]
ExtractKey = Literal["marker", "regex", "json", "call"]


def _written(value: object) -> str:
    """Judge a step as what it is written as: a message then speaks of that alone."""
    return "(key)" if isinstance(value, dict) else "(several)" if isinstance(value, list) else "(name)"


ExtractStep = Annotated[
    Annotated[ExtractName, Tag("(name)")]
    | Annotated[
        dict[ExtractKey, Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=1),
        Tag("(key)"),
    ],
    Discriminator(_written),
]
"""One step of reading an answer out of a completion: `trials/outcomes/extract.py` says what each does."""


_CALL = r"^[\w.]+:[\w.]+$"


class JudgeSettings(Strict):
    """Who judges a completion: a local model, one behind an endpoint, or a function from text to text."""

    model: (
        Annotated[
            Annotated[Annotated[str, Field(min_length=1)], Tag("(local)")]
            | Annotated[EndpointSettings, Tag("(endpoint)")],
            Discriminator(lambda v: "(endpoint)" if on_endpoint(v) or isinstance(v, dict) else "(local)"),
        ]
        | None
    ) = Field(
        default=None,
        description="A local model, named as the study's own, or the settings of an endpoint, as there.",
    )
    call: str | None = Field(
        default=None,
        pattern=_CALL,
        description="'package.module:function': given the judge's prompt, it gives the judge's reply.",
    )
    prompt: str = Field(
        default=(
            "Question:\n{{ question }}\n\nReference answer:\n{{ answer }}\n\nResponse:\n{{ completion }}\n\n"
            "Does the response give the reference answer? Reply with one word, yes or no."
        ),
        description="A template (jinja2, sandboxed) of question, answer, completion, solution, choices and "
        "task_type. The arm is never shown.",
    )
    verdicts: dict[Annotated[str, Field(pattern=r"\w")], float] = Field(
        default_factory=lambda: {"yes": 1.0, "no": 0.0},
        min_length=2,
        description="What each of the words that the judge may say is worth.",
    )
    reps: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="How often each completion is judged; the outcome is the mean."
    )
    temperature: Annotated[float, Field(ge=0, le=5)] = Field(
        default=0.0, description="At which a model's verdicts are drawn; 0 takes the likeliest."
    )
    max_tokens: Annotated[int, Field(ge=1)] = Field(
        default=64, description="The most tokens of an endpoint's reply; a judge that reasons needs more."
    )
    labels: str | None = Field(
        default=None, description="Another 0/1 outcome of the study, with which its agreement is given."
    )

    @model_validator(mode="after")
    def _one(self) -> JudgeSettings:
        if (self.model is None) == (self.call is None):
            raise ValueError("a judge is one of 'model' and 'call': give one of them")
        if self.call is not None and self.temperature:
            raise ValueError("temperature is a model's: what 'call' asks has its own")
        if isinstance(self.model, EndpointSettings):
            if self.model.batch:
                raise ValueError("a judge is asked as the completions come: leave 'batch' out of its model")
        elif "max_tokens" in self.model_fields_set:
            raise ValueError("max_tokens is of an endpoint's reply: a local model is scored on its verdicts")
        if self.model is not None and self.reps > 1 and not self.temperature:
            raise ValueError("at temperature 0 every repetition is the same: raise it, or leave reps out")
        return self


class OutcomeSettings(Strict):
    """One outcome: a built-in scorer by name, or a Python callable by import path."""

    name: Name
    call: str | None = Field(default=None, pattern=_CALL, description="'package.module:function'")
    needs: Literal["completion", "scores"] = "completion"
    options: dict[str, Any] = Field(default_factory=dict)
    extract: (
        Annotated[
            Annotated[ExtractStep, Tag("(one)")]
            | Annotated[list[ExtractStep], Field(min_length=1), Tag("(several)")],
            Discriminator(lambda v: "(several)" if isinstance(v, list) else "(one)"),
        ]
        | None
    ) = Field(
        default=None,
        description="What of a completion is the answer: last_number, first_number, choice, code, "
        "{marker: TEXT}, {regex: PATTERN}, {json: FIELD}, {call: 'package.module:function'}, or several, "
        "each of which reads what the one before found. Default: what the outcome is of.",
    )
    judge: JudgeSettings | None = Field(
        default=None, description="Who says what a completion is worth: then the name is the study's own."
    )
    wrong_format: float = Field(
        default=0.0, description="What a completion is worth in which there is nothing to extract."
    )

    @property
    def steps(self) -> tuple[str | dict[ExtractKey, str], ...] | None:
        """The steps of extraction, None where the outcome's own are meant."""
        if self.extract is None:
            return None
        return tuple(self.extract) if isinstance(self.extract, list) else (self.extract,)

    @property
    def calls(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """Every Python function that the outcome names, each with its key."""
        own: list[tuple[tuple[str, ...], str]] = [] if self.call is None else [(("call",), self.call)]
        if self.judge is not None and self.judge.call is not None:
            own.append((("judge", "call"), self.judge.call))
        steps = [s["call"] for s in self.steps or () if isinstance(s, dict) and "call" in s]
        return (*own, *((("extract",), path) for path in steps))

    @model_validator(mode="after")
    def _known(self) -> OutcomeSettings:
        if self.name in BUILTIN_COLUMNS:
            raise ValueError(f"{self.name!r} is a column of the trial table itself: choose another name")
        if self.judge is not None:
            if self.call is not None or self.options or self.needs != "completion":
                raise ValueError("a judge reads a completion, and takes no call, needs or options beside it")
            if self.name in BUILTIN_OUTCOMES:
                raise ValueError(f"{self.name!r} is a built-in outcome: give the judge's a name of its own")
        elif self.call is None and self.name not in BUILTIN_OUTCOMES:
            raise ValueError(
                f"no built-in outcome {self.name!r}{did_you_mean(self.name, BUILTIN_OUTCOMES) or ':'}"
                f" choose one of {', '.join(BUILTIN_OUTCOMES)}, "
                "or give 'call: package.module:function' or a 'judge'"
            )
        return self

    @model_validator(mode="after")
    def _readable(self) -> OutcomeSettings:
        for step in self.steps or ():
            if isinstance(step, str):
                continue
            ((key, value),) = step.items()
            if key == "regex":
                try:
                    re.compile(value)
                except re.error as error:
                    raise ValueError(f"extract.regex {value!r} is no pattern: {error}") from None
            elif key == "call" and re.fullmatch(r"[\w.]+:[\w.]+", value) is None:
                raise ValueError(f"extract.call is {value!r}: write 'package.module:function'")
        return self


# In a file the name of a built-in outcome stands for the whole entry; the published schema says so.
_SHORT = {"type": "string", "enum": list(BUILTIN_OUTCOMES), "description": "A built-in outcome by name."}


class _ShortOutcome:
    """Adds the short form to the schema of an outcome."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's protocol
        return {"anyOf": [_SHORT, handler(core)]}


Outcome = Annotated[OutcomeSettings, _ShortOutcome]
