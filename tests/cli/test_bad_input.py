"""What a person may get wrong, case by case: one message that says what and where, exit code 2, no file made.

Every case here once gave a traceback, hung, used up the memory, or passed without a word.
"""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass, field

import pandas as pd
import pytest
import yaml

from whyprompt import cli

# A hang is a failure; the limit is far from what any case needs, so that a busy machine does not reach it.
pytestmark = pytest.mark.timeout(120)

TABLE = "arm,correct,long\n" + "".join(f"{i % 2},{int(i % 3 == 0)},{i % 5}\n" for i in range(40))
RECORDS = [{"arm": i % 2, "correct": int(i % 3 == 0), "long": i % 5} for i in range(40)]
EFFECT = ("--treatment", "arm", "--outcome", "correct", "--confounders", "long", "--method", "ipw")


@dataclass(frozen=True)
class Case:
    """Files in an empty folder, a command in it, and words of its message, in their order."""

    name: str
    command: tuple[str, ...]
    words: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)


def table(name: str, content: str | bytes, *words: str, file: str = "t.csv", options=EFFECT) -> Case:
    """A table that ``whyprompt effect`` refuses."""
    return Case(name, ("effect", file, *options), words, {file: content})


def lines(rows, **changes) -> str:
    first, *rest = rows
    return "\n".join(json.dumps(r) for r in [{**first, **changes}, *rest])


def damaged_parquet() -> bytes:
    """A Parquet file whose first page is overwritten."""
    made = io.BytesIO()
    pd.DataFrame({"question": [f"What is {i}?" for i in range(50)], "answer": "1"}).to_parquet(made)
    content = bytearray(made.getvalue())
    content[4:200] = b"\xff" * 196
    return bytes(content)


TABLES = [
    table(
        "comma at every line's end",
        TABLE.replace("\n", ",\n").replace("long,\n", "long\n", 1),
        "t.csv:2: 4 fields, where the first line names 3 columns",
        "drop the separator at the end of the line",
    ),
    table(
        "column of row names without a name",
        "arm,correct,long\n" + "".join(f"{i},{i % 2},{i % 3},{i % 5}\n" for i in range(1, 9)),
        "t.csv:2: 4 fields, where the first line names 3 columns",
        "name every column",
    ),
    table("one row too long", TABLE + "1,0,2,9\n", "t.csv:42: 4 fields, where the first line names 3"),
    table("one row too short", TABLE + "1,0\n", "t.csv:42: 2 fields, where the first line names 3"),
    table("bytes in a later line", TABLE.encode() + b"1,0,\xff\n", "t.csv:", "not UTF-8"),
    table("nested without end", "[" * 200_000, "t.jsonl:1: the JSON is nested too deeply", file="t.jsonl"),
    table(
        "a number of 400 digits",
        lines(RECORDS, long=10**400),
        "column 'long' holds a whole number of more than 308 digits",
        file="t.jsonl",
    ),
    table(
        "a number of 5,000 digits",
        '{"arm": 1, "correct": 1, "long": ' + "1" * 5000 + "}",
        "t.jsonl:1: holds a whole number of more than 4,300 digits",
        file="t.jsonl",
    ),
    table(
        "half a character as an arm",
        '{"arm": "\\ud800", "correct": 1, "long": 1}\n' + lines(RECORDS, arm="b"),
        "t.jsonl, record 1: column 'arm' holds half a character (a lone surrogate, U+D800)",
        file="t.jsonl",
    ),
    table(
        "half a character in every arm",
        '{"arm": "\\ud83d", "correct": 1, "long": 1}\n{"arm": "b", "correct": 1, "long": 1}\n' * 9,
        "t.jsonl, record 1: column 'arm' holds half a character (a lone surrogate, U+D83D)",
        file="t.jsonl",
    ),
    table(
        "damaged Parquet",
        damaged_parquet(),
        "t.parquet is not a Parquet file, or is damaged",
        file="t.parquet",
    ),
    *(
        Case(
            f"{flag} {value}",
            ("effect", "t.csv", *EFFECT, flag, value),
            (f"Invalid value for '{flag}'", limit),
            {"t.csv": TABLE},
        )
        for flag, value, limit in (("--seed", "-1", "0"),)
    ),
    *(
        Case(
            " ".join(written),
            ("effect", "t.csv", *EFFECT[:-2], *written),
            (said, "at most"),
            {"t.csv": TABLE},
        )
        for written, said in (
            (("--method", "ipw", "--std-error", "bootstrap:draws=1000000000000"), "draws=1000000000000"),
            (("--method", "ipw", "--check", "placebo:draws=1000000000"), "placebo:draws=1000000000"),
            (("--method", "nearest:ratio=1000000000"), "NAME:ratio=1000000000"),
            (("--method", "subclass:n_strata=1000000000"), "NAME:n_strata=1000000000"),
            (("--method", "nearest:neighbours=1000000000"), "NAME:neighbours=1000000000"),
            (("--method", "ipw", "--impute", "1000000000"), "--impute 1000000000"),
        )
    ),
    *(
        Case(" ".join(written), ("effect", "t.csv", *EFFECT[:-2], *written), (said,), {"t.csv": TABLE})
        for *written, said in (
            ("--method", "nearest:caliper=nan", "caliper is nan"),
            ("--method", "kernel:bandwidth=nan", "bandwidth is nan"),
            ("--method", "ipw", "--level", "nan", "the level is nan"),
        )
    ),
    Case("a name of 300 letters", ("effect", "a" * 300 + ".csv", *EFFECT), ("there is no such file",)),
    Case(
        "a graph of 300 letters",
        ("effect", "t.csv", "--treatment", "arm", "--outcome", "correct", "--graph", "a" * 300),
        ("is neither a file nor arrow text",),
        {"t.csv": TABLE},
    ),
]


ITEMS = "".join(
    json.dumps(
        {"id": f"q{i}", "q": f"What is {i} plus {i % 7}?", "a": str(i + i % 7), "lv": 1 + i % 3, "same": 1}
    )
    + "\n"
    for i in range(12)
)
BASE = {
    "name": "bad",
    "question": "Do shots help?",
    "model": {"name": "MODEL", "device": "cpu", "threads": 1},
    "items": [
        {
            "source": "file",
            "path": "items.jsonl",
            "size": 8,
            "shot_pool": 4,
            "columns": {
                "item_id": "id",
                "question": "q",
                "answer": "a",
                "difficulty": "lv",
                "covariates": ["same"],
            },
        }
    ],
    "arms": {"direct": {"kind": "direct"}, "shots": {"kind": "few_shot", "shots": 2}},
    "outcomes": ["log_prob"],
}
DRY, RUN = ("run", "s.yaml", "--dry-run"), ("run", "s.yaml")


def study(name: str, *words: str, command=DRY, text=None, items=ITEMS, **changes) -> Case:
    """A study that is refused: the base, with some keys changed, or the text itself."""
    text = text or yaml.safe_dump({**BASE, **changes}, sort_keys=False)
    return Case(name, command, words, {"s.yaml": text, "items.jsonl": items})


def said(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


TEXT = yaml.safe_dump(BASE, sort_keys=False)
AUDIT = {"assignment": {"difficulty": 1.0}}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
SETTINGS = [
    study(
        "no such method",
        "s.yaml:28: effect.method: 'zzz' is not known; one of naive, nearest",
        effect={"method": "zzz"},
    ),
    study(
        "no such audit method",
        "effect.audit.method: 'z' is not known; one of naive",
        effect={"audit": {**AUDIT, "method": "z"}},
    ),
    study(
        "no such confounder",
        "s.yaml:29: effect.confounders.0: 'zzz' is no column that the items have; they have item_id,",
        effect={"confounders": ["zzz"], "audit": AUDIT},
    ),
    study(
        "confounders that nothing adjusts for",
        "s.yaml:28: effect.confounders: has no meaning with design: paired",
        effect={"confounders": ["difficulty"]},
    ),
    study(
        "a method with options in a paired design",
        "effect.method: has no meaning with design: paired",
        effect={"method": {"nearest": {"exact": ["zzz"]}}},
    ),
    study("a method in a paired design", "effect.method: has no meaning with", effect={"method": "ipw"}),
    study(
        "a caliper where the lot decides",
        "effect.method: has no meaning",
        design="randomized",
        effect={"method": {"nearest": {"caliper": 0.1}}},
    ),
    study(
        "an audit of one arm an item",
        "effect.audit: an audit needs every item",
        design="randomized",
        effect={"audit": AUDIT},
    ),
    study(
        "an audit of one draw", "effect.audit.draws: an audit needs", effect={"audit": {**AUDIT, "draws": 1}}
    ),
    study(
        "a caliper for weights",
        "effect.audit.method.overlap.caliper: a caliper has no meaning for method 'overlap': use nearest",
        effect={"audit": {**AUDIT, "method": {"overlap": {"caliper": 0.1}}}},
    ),
    study(
        "an option that no method has",
        "effect.audit.method.nearest.calliper: option 'calliper' is not known",
        effect={"audit": {**AUDIT, "method": {"nearest": {"calliper": 0.1}}}},
    ),
    study(
        "two methods at once",
        "effect.audit.method: method",
        "a name, or one name with its options",
        effect={"audit": {**AUDIT, "method": {"nearest": {}, "ipw": {}}}},
    ),
    study(
        "no such method with options",
        "effect.audit.method.zzz: 'zzz' is not known; one of naive",
        effect={"audit": {**AUDIT, "method": {"zzz": {"caliper": 0.1}}}},
    ),
    study(
        "no such subgroup",
        "s.yaml:28: effect.by: 'zzz' is no column that the items have",
        effect={"by": "zzz"},
    ),
    study(
        "subgroups of what the arm causes",
        "effect.by: 'prompt_tokens' is known only after the arm",
        effect={"by": "prompt_tokens"},
    ),
    study(
        "no such column in a rule",
        "effect.audit.assignment.zzz: 'zzz' is no column",
        effect={"audit": {"assignment": {"zzz": 1.0}}},
    ),
    study(
        "a rule on text",
        "effect.audit.assignment.task_type: is text",
        effect={"audit": {"assignment": {"task_type": 1.0}}},
    ),
    study(
        "a rule on a constant",
        "effect.audit.assignment.same: is the same for every item",
        effect={"audit": {"assignment": {"same": 1.0}}},
    ),
    study(
        "a rule with nan",
        "effect.audit.assignment.difficulty: holds nan",
        effect={"audit": {"assignment": {"difficulty": float("nan")}}},
    ),
    study(
        "no such exact column in an audit",
        "effect.audit.method.nearest.exact.0: 'zzz' is no column",
        effect={"audit": {**AUDIT, "method": {"nearest": {"exact": ["zzz"]}}}},
    ),
    study("a graph that is none", "s.yaml:27: graph: line 1: cannot read '['", graph="-> -> ["),
    study(
        "a graph with a cycle",
        "s.yaml:27: graph: ",
        "cycle",
        graph="arm -> log_prob; log_prob -> x; x -> log_prob",
    ),
    study("a graph without the arm", "graph: has no node 'arm'", graph="difficulty -> log_prob"),
    study(
        "a graph that hides the confounder",
        "graph: no columns of the items identify",
        graph="u [latent]; u -> arm; u -> log_prob; arm -> log_prob; difficulty -> log_prob",
        effect={"audit": AUDIT},
    ),
    study(
        "no such segment",
        "mediation.segment: no prompt of 'shots' or 'direct'",
        "shots",
        mediation={"segment": "zzz"},
    ),
    study(
        "no such task",
        "s.yaml:29: mediation.tasks.0: 'zzz' is no task family of the items; they are items",
        mediation={"tasks": ["zzz"]},
    ),
    study(
        "a placebo that is the control",
        "mediation.placebo: 'direct' is the control",
        mediation={"placebo": "direct"},
    ),
    study(
        "one arm to mediate",
        "mediation: compares two arms",
        arms={"direct": {"kind": "direct"}},
        mediation={},
    ),
    study(
        "arms that end in different cues",
        "mediation.contrast: arm 'shots' ends in 'So:' and arm 'direct' ends in 'Answer:'",
        arms={"direct": {"kind": "direct"}, "shots": {"kind": "few_shot", "shots": 2, "cue": "So:"}},
        mediation={},
    ),
    study(
        "a stop that is nothing",
        "generation.stop.0: '': at least 1 character",
        generation={"stop": [""]},
    ),
    study(
        "True for a number",
        "s.yaml:10: items.0.size: True is not a whole number; write size: 3",
        text=said(TEXT, "size: 8", "size: true"),
    ),
    study(
        "a temperature below zero",
        "temperature: -1.0: at least 0",
        arms={"a": {"kind": "direct", "temperature": -1.0}},
    ),
    study(
        "bytes as a question",
        "question: b'Do' is not text; write question: Do worked examples help?",
        text=said(TEXT, "question: Do", "question: !!binary RG8=  #"),
    ),
    study("a seed below zero", "seeds.items: -1: at least 0", seeds={"items": -1}),
    study(
        "a seed of 31 digits",
        "seeds.sampling: holds a whole number beyond 64 bits",
        seeds={"sampling": 10**30},
    ),
    study(
        "a million million threads",
        "model.threads: 1000000000000: at most 1024",
        model={**BASE["model"], "threads": 10**12},
    ),
    study("a device that holds nothing", "model.device", "'meta'", model={**BASE["model"], "device": "meta"}),
    study(
        "items without end",
        "items.0.size: 1000000000: at most 100000",
        text=said(TEXT, "size: 8", "size: 1000000000"),
    ),
    study(
        "shots without end",
        "shot_pool: 1000000000: at most 100000",
        text=said(TEXT, "shot_pool: 4", "shot_pool: 1000000000"),
    ),
    study("repetitions without end", "reps: 1000000000: at most 10000", reps=10**9),
    study(
        "more trials than a plan holds",
        "has 1,440,000 trials; a study has at most 1,000,000",
        reps=10_000,
        arms={f"a{i}": {"kind": "direct"} for i in range(18)},
    ),
    study(
        "draws without end",
        "effect.audit.draws: 1000000000000: at most 100000",
        effect={"audit": {**AUDIT, "draws": 10**12}},
    ),
    study(
        "half a character",
        "s.yaml:2: question: holds half a character",
        text=said(TEXT, "question: Do", 'question: "\\ud800 Do').replace("help?", 'help?"'),
    ),
    study(
        "half a character in an instruction",
        "arms.direct.instruction: holds half a character",
        text=said(TEXT, "kind: direct", 'kind: direct\n    instruction: "\\ud83d"'),
    ),
    study(
        "half a character in an item",
        "items.jsonl, row 1: column 'q' holds half a character",
        items=ITEMS.replace("What is 0", "\\ud83d", 1),
    ),
    study(
        "an infinite answer",
        "items.jsonl, row 1: column 'a' holds inf",
        items=ITEMS.replace('"a": "0"', '"a": Infinity', 1),
    ),
    study(
        "an infinite covariate",
        "items.jsonl, row 1: column 'same' holds inf",
        items=ITEMS.replace('"same": 1', '"same": Infinity', 1),
    ),
    study(
        "a covariate of 400 digits",
        "column 'same' holds a whole number of more than 308",
        items=ITEMS.replace('"same": 1', '"same": 1' + "0" * 400, 1),
    ),
    study("items nested without end", "items.jsonl:1: the JSON is nested too deeply", items="[" * 200_000),
    study("a NUL in a path", "items.0.path: holds a NUL", text=said(TEXT, "items.jsonl", '"a\\0b"')),
    study("a NUL in a model's name", "model.name: holds a NUL", text=said(TEXT, "MODEL", '"a\\0b"')),
    study("a path of 300 letters", "no such file: ", text=said(TEXT, "items.jsonl", "a" * 300 + ".jsonl")),
    study("an alias bomb", "s.yaml has more than 20,000 entries", text=BOMB),
    study(
        "an alias bomb of mappings",
        "s.yaml has more than 20,000 entries",
        text="".join(
            [
                "a: &a {k: v, l: v}\n",
                *(
                    f"{new}: &{new} {{{', '.join(f'k{i}: *{old}' for i in range(10))}}}\n"
                    for old, new in zip("abcdef", "bcdefg", strict=True)
                ),
            ]
        ),
    ),
    study(
        "five megabytes of keys",
        "s.yaml has",
        "a study has at most 1,048,576",
        text="".join(f"key{i}: {i}\n" for i in range(400_000)),
    ),
    study(
        "thousands of keys",
        "s.yaml has more than 20,000 entries",
        text="".join(f"key{i}: {i}\n" for i in range(30_000)),
    ),
    study(
        "hundreds of unknown keys",
        "s.yaml:1: key0: unknown key",
        "and 984 more",
        text="".join(f"key{i}: {i}\n" for i in range(1000)),
    ),
    study(
        "a number of 5,000 digits",
        "s.yaml:27: '1111",
        "cannot be read as int",
        text=TEXT + "reps: " + "1" * 5000,
    ),
    Case(
        "a number of 5,000 digits in TOML",
        ("run", "s.toml"),
        ("s.toml: holds a whole number of more than 4,300",),
        {"s.toml": "reps = " + "1" * 5000},
    ),
    Case(
        "TOML nested without end",
        ("run", "s.toml"),
        ("s.toml: ", "nested too deeply"),
        {"s.toml": "a = " + "[" * 50_000},
    ),
    *(
        study(
            f"{value} unquoted",
            "s.yaml:1: ",
            "cannot be read as",
            "hint: put text in quotes",
            text=f"name: {value}\n",
        )
        for value in (
            "2024-13-45",
            "2024-02-30",
            "!!int abc",
            "!!float x",
            "!!timestamp x",
            "!!bool zz",
            "0b_",
        )
    ),
]
SETTINGS += [
    Case(
        "damaged Parquet as items",
        DRY,
        ("items.parquet is not a Parquet file, or is damaged",),
        {"s.yaml": said(TEXT, "items.jsonl", "items.parquet"), "items.parquet": damaged_parquet()},
    ),
    study("a folder of 300 letters", "File name too long", command=(*RUN, "--out", "a" * 300)),
    study("a model of 300 letters", "File name too long", text=said(TEXT, "MODEL", "a" * 300)),
]
TEMPLATES = [
    study(
        f"template {number}: {text[:30]}",
        "arm 't'",
        *words,
        arms={"direct": {"kind": "direct"}, "t": {"kind": "template", "template": text}},
    )
    for number, (text, *words) in enumerate(
        [
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "fails on item 'q", "RecursionError"),
            ("{{ 5|dictsort }}", "fails on item 'q", "AttributeError"),
            ("{{ question|xmlattr }}", "fails on item 'q", "AttributeError"),
            ("{{ 10**5000 }}", "a power has more than 4,000 digits"),
            ("{{ 'a'*10**10 }}", "has more than"),
            ("{{ question|center(10000000000) }}", "the filter 'center' takes a number above 1,000,000"),
            ("{{ question.center(10000000000) }}", "center() takes a number above 1,000,000"),
            (
                "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x",
                "its loops make more than 1,000,000 passes",
            ),
            (
                "{% for a in range(99) %}{{ 'a' * 99999 }}{% endfor %}",
                "its text has more than 1,000,000 characters",
            ),
            ("{{ [1, 2, 3]|random }}", "No filter named 'random'"),
            ("{{ lipsum() }}", "uses 'lipsum', which is not a variable"),
            ("{{ shots|map('upper') }}", "prints '<generator object", "which differs from run to run"),
            ("{{ question.upper }}", "prints '<built-in method upper"),
            ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "the template cannot be read: RecursionError"),
        ]
    )
]


EMPTY_SCORES = "item_id,arm,score,x\n" + "".join(f"q{i},{arm},,{i}\n" for i in range(9) for arm in "ab")
PLAIN = [
    Case(
        "scores that are empty, as a log",
        ("report", "t.csv"),
        (
            "no column holds a score: 'score' is empty",
            "; whyprompt effect t.csv says what its columns may be",
        ),
        {"t.csv": EMPTY_SCORES},
    ),
    Case(
        "scores that are empty, as a table",
        ("effect", "t.csv"),
        ("no column of numbers looks like an outcome: 'score' has no value",),
        {"t.csv": EMPTY_SCORES},
    ),
    Case(
        "words of another language as scores",
        ("report", "t.csv"),
        ("'Ergebnis' has 'ja' and 'nein', no scores", "whyprompt effect t.csv says"),
        {"t.csv": "Frage;Prompt;Ergebnis\n" + "".join(f"q;a;{word}\n" for word in ["ja", "nein"] * 4)},
    ),
    *(
        Case(
            f"scores such as {score}",
            ("effect", "t.csv"),
            (f"looks like an outcome: 'score' {said}",),
            {"t.csv": "item_id,arm,score\n" + "".join(f"q,{arm},{score}\n" for arm in "abab")},
        )
        for score, said in (
            ("45%", "holds text, such as '45%': write 1 and 0, or numbers"),
            ("inf", "has 4 infinite value(s)"),
        )
    ),
    Case("a folder for a table", ("effect", "."), (". is a folder without files",)),
    Case(
        "a page as what is reported",
        ("report", "a.html", "b.html"),
        ("a.html is a page", "two (.yaml), or logs"),
    ),
]


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path, tiny_model):
    """Run a command in a folder of its own, check how it is refused, and give the message."""
    monkeypatch.chdir(tmp_path)

    def run(case: Case) -> str:
        for name, content in case.files.items():
            data = content if isinstance(content, bytes) else content.encode()
            data = data.replace(b"name: MODEL", f"name: {tiny_model}".encode())
            (tmp_path / name).write_bytes(data)
        before = sorted(p.name for p in tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["whyprompt", *case.command])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        assert code == 2, (code, out[-500:], err)
        assert out == ""
        assert "Traceback" not in err
        assert len([line for line in err.splitlines() if line.lower().startswith("error: ")]) == 1, err
        assert sorted(p.name for p in tmp_path.rglob("*")) == before
        return err

    return run


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_a_refusal_names_the_verb_that_helps(refused, case):
    said = refused(case)
    assert [word for word in case.words if word not in said] == []
    assert "--treatment, --outcome" not in said


def test_a_file_that_cannot_be_read_gets_no_advice_about_columns(refused):
    said = refused(Case("", ("report", "t.csv"), (), {"t.csv": "question,answer,answer\na?,1,1\n"}))
    assert said.endswith("so that a name means one column\n")


@pytest.mark.parametrize("case", TABLES, ids=lambda case: case.name)
def test_a_table_that_is_refused(case, refused):
    text = refused(case)
    for word in case.words:
        assert word in text, text


@pytest.mark.parametrize("case", [*SETTINGS, *TEMPLATES], ids=lambda case: case.name)
def test_a_study_that_is_refused(case, refused):
    text = refused(case)
    for word in case.words:
        assert word in text, text


@pytest.mark.parametrize("command", [RUN, ("effect", "s.yaml"), ("mediate", "s.yaml"), ("report", "s.yaml")])
def test_every_verb_checks_the_whole_study(command, refused):
    """And lists every mistake at once, before it looks for trials."""
    text = refused(
        study(
            "all of it",
            command=command,
            effect={"by": "zzz", "audit": {"assignment": {"yyy": 1.0}}},
            graph="a -> b; b -> a",
            mediation={"tasks": ["xxx"], "segment": "www"},
        )
    )
    for key in (
        "effect.by",
        "effect.audit.assignment.yyy",
        "graph",
        "mediation.tasks.0",
        "mediation.segment",
    ):
        assert f": {key}: " in text


@pytest.mark.parametrize(
    "command",
    [
        DRY,
        RUN,
        ("effect", "s.yaml"),
        ("mediate", "s.yaml"),
        ("report", "s.yaml"),
        ("export", "s.yaml", "t.csv"),
    ],
)
def test_no_code_is_imported_where_it_may_not_be(command, refused):
    outcomes = ["log_prob", {"name": "mine", "call": "harmful:score"}]
    files = study("", outcomes=outcomes).files | {"harmful.py": "raise SystemExit('ran')"}
    text = refused(Case("", (*command, "--no-code"), (), files))
    assert (
        "s.yaml:28: outcomes.1.call: imports and runs 'harmful:score', and code is not allowed here" in text
    )


def test_how_heads_are_related_is_one_of_two_ways(refused):
    text = refused(Case("", ("mediate", "s.yaml", "--relate", "3", "--paths", "direct"), (), study("").files))
    assert "--paths 'direct' is not known" in text
    assert "one of: path, direct_path" in text
    text = refused(Case("", ("mediate", "s.yaml", "--relate", "1"), (), study("").files))
    assert "greater than or equal to 2" in text


def test_sites_and_tokens_of_a_mediation_are_read_before_anything_runs(refused):
    for options, said in (
        (("--sites", "mlp,layer 3"), "'layer 3' names no site"),
        (("--sites", "head 2"), "'head 2' is swept anyway"),
        (("--tokens", "all"), "--tokens 'all' is not known"),
    ):
        assert said in refused(Case("", ("mediate", "s.yaml", *options), (), study("").files))


def test_no_code_means_nothing_with_a_table(refused):
    assert "--no-code has no meaning with a table" in refused(
        Case("", ("effect", "t.csv", *EFFECT, "--no-code"), (), {"t.csv": TABLE})
    )


def test_a_pipe_is_no_table(refused, tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    assert "t.csv: there is no such file" in refused(Case("pipe", ("effect", "t.csv", *EFFECT), ()))
