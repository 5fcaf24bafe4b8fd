"""``whyprompt init``: a study that runs, from questions, trials or nothing, and asks only on a terminal."""

import io
import json
import re

import pandas as pd
import pytest

from whyprompt.cli import init as verb
from whyprompt.cli import main
from whyprompt.study import load_study, study_json_schema
from whyprompt.trials.starting import look_at_questions


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody answers
    return tmp_path


def questions(path, n=24, **columns):
    names = {"question": "question", "answer": "answer"} | columns
    rows = [
        {
            "key": f"k{i}",
            names["question"]: f"What is {i} plus {i % 5}?",
            names["answer"]: str(i + i % 5),
            "topic": "sums" if i % 2 else "more sums",
            "level": i % 3,
        }
        for i in range(n)
    ]
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def dry(run, study):
    code, out, err = run("run", study, "--dry-run", "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("file", ["q.csv", "q.jsonl", "q.json", "q.parquet"])
def test_a_study_of_a_file_of_questions_runs_at_once(run, here, tiny_model, file):
    questions(here / file)
    code, out, err = run("init", file, "--model", tiny_model)
    assert code == 0, err
    assert "study.yaml: few_shot against direct on 18 of the 24 questions of" in out
    assert f"{file}, 6 being kept as examples (" in out
    assert "question: 'question', answer: 'answer', difficulty: 'level', task_type: 'topic'" in out
    study = load_study(here / "study.yaml")
    assert study.items[0].columns.task_type == "topic"
    assert list(study.arms) == ["direct", "few_shot"]
    # Of either task's twelve a quarter is kept out, since an arm draws three examples.
    assert dry(run, "study.yaml")["items"] == 18


def test_a_study_without_anything_runs_at_once(run, here, tiny_model):
    code, out, err = run(
        "init", "--model", tiny_model, "--arms", "direct,cot", "--question", 'Does "cot" help?'
    )
    assert code == 0, err
    assert out.splitlines()[1:] == [
        "Next:",
        "  whyprompt run study.yaml --dry-run",
        "  whyprompt run study.yaml",
        "  whyprompt effect study.yaml",
    ]
    study = load_study(here / "study.yaml")
    assert study.question == 'Does "cot" help?'
    assert study.arms["cot"].kind == "chain_of_thought"
    assert dry(run, "study.yaml")["trials"] == 48


def test_the_study_that_is_written_is_run_and_answered(run, here, tiny_model):
    """From an empty folder to an answer by the commands that `init` prints."""
    questions(here / "q.csv", n=12)
    _, out, _ = run("init", "q.csv", "--model", tiny_model, "--arms", "direct,json", "--out", "mine.yaml")
    for command in re.findall(r"^  whyprompt (.*)$", out, re.MULTILINE):
        code, printed, err = run(*command.split())
        assert code == 0, err
    assert "'json' instead of 'direct'" in printed


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_trials_need_no_study_but_a_command(run, here, separator):
    rows = [
        {"item_id": i, "arm": arm, "correct": (i + k) % 2} for i in range(20) for k, arm in enumerate("ab")
    ]
    pd.DataFrame(rows).to_csv("both.csv", index=False, sep=separator)
    code, out, _ = run("init", "both.csv")
    assert code == 0
    assert out.splitlines()[-1] == "  whyprompt effect both.csv"
    assert not (here / "study.yaml").exists()
    assert run("effect", "both.csv")[0] == 0


@pytest.mark.usefixtures("here")
def test_a_log_of_one_arm_a_row_gets_the_command_that_names_its_columns(run):
    rows = [
        {"prompt_version": "ab"[i % 2], "hard": i % 7, "score": i % 3, "latency_ms": i} for i in range(60)
    ]
    pd.DataFrame(rows).to_csv("log.csv", index=False)
    code, out, _ = run("init", "log.csv", "--json")
    assert code == 0
    command = json.loads(out)["command"]
    assert command.endswith(
        "--treatment prompt_version --outcome score --treated b --control a --confounders hard"
    )
    assert run(*command.split()[1:])[0] == 0


@pytest.mark.usefixtures("here")
def test_logs_of_another_tool_get_their_command(run, shared_logs):
    logs = sorted(shared_logs.rglob("*.eval"))[:2]
    if len(logs) < 2:
        pytest.skip("no two Inspect logs among the real ones")
    code, out, _ = run("init", *logs)
    assert code == 0
    assert out.splitlines()[-1].split() == ["whyprompt", "effect", *map(str, logs)]


def test_columns_by_other_names_are_named(run, here):
    questions(here / "q.csv", question="asked", answer="sum")
    code, _, err = run("init", "q.csv")
    assert code == 2
    assert "no column is called as a question is; it has key, asked, sum, topic, level" in err
    assert "say which it is with --question-column" in err
    code, _, err = run("init", "q.csv", "--question-column", "askd", "--answer-column", "sum")
    assert (code, "--question-column askd is no column; did you mean 'asked'?" in err) == (2, True)
    assert run("init", "q.csv", "--question-column", "asked", "--answer-column", "sum")[0] == 0
    assert load_study(here / "study.yaml").items[0].columns.answer == "sum"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("absent.csv",), "absent.csv: there is no such file"),
        (("--out", "study.txt"), "study.txt: a study is written as .yaml"),
        (("--out", "no/study.yaml"), "no such folder: no"),
        (("--arms", "direct,few_shots"), "did you mean 'few_shot'?"),
        (("--arms", "direct,ct"), "did you mean 'cot'?"),
        (("--key-env", "KEY"), "--key-env is the key of a server, and none is named"),
        (("--endpoint", "x", "--model", "m"), "error: --endpoint: is no URL"),
        (("--arms", "direct"), "arms direct: a study compares two or more"),
        (("--arms", "direct,Direct"), "arms direct, Direct: a study compares two or more, each named once"),
        (("--endpoint", "https://x/v1"), "--endpoint needs the model's name there"),
        (
            ("--outcomes", "exact"),
            "error: --outcomes: no built-in outcome 'exact'; did you mean 'exact_match'?",
        ),
        (("--endpoint", "http://x/v1", "--model", "m"), "sends prompts and keys unencrypted"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(run, here, words, said):
    code, out, err = run("init", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"), [("", "holds no questions"), ("question,answer\n", "holds no questions")]
)
def test_a_file_without_a_question_is_said_to_be_so(run, here, text, said):
    (here / "q.csv").write_text(text)
    code, _, err = run("init", "q.csv")
    assert (code, f"q.csv {said}" in err) == (2, True)
    (here / "folder").mkdir()
    code, out, err = run("init", "folder")
    assert (code, out, "folder is a folder without files" in err) == (2, "", True)


def test_few_shot_needs_a_question_beside_the_one_that_is_asked(run, here):
    questions(here / "q.csv", 1)
    code, out, err = run("init", "q.csv")
    assert (code, out) == (2, "")
    assert "q.csv holds one question, and few_shot shows others as examples" in err
    assert not (here / "study.yaml").exists()
    assert run("init", "q.csv", "--arms", "direct,cot")[0] == 0


def test_a_score_of_each_arm_on_one_row_is_what_the_command_reads(run, here):
    rows = [{"question": f"q{i}?", "score_direct": i % 2, "score_cot": int(i % 3 > 0)} for i in range(20)]
    pd.DataFrame(rows).to_csv(here / "wide.csv", index=False)
    code, out, _ = run("init", "wide.csv", "--json")
    assert (code, json.loads(out)["command"]) == (0, "whyprompt effect wide.csv")
    assert run("effect", "wide.csv")[1].startswith("With 'cot' instead of 'direct', 'score' goes from 50%")
    # Such columns of questions are no scores.
    tagged = [{"question": f"q{i}?", "answer": "1", "tag_a": i % 2, "tag_b": 0} for i in range(20)]
    pd.DataFrame(tagged).to_csv(here / "q.csv", index=False)
    assert "few_shot against direct on 15 of the 20 questions" in run("init", "q.csv")[1]


@pytest.mark.parametrize("named", [["a.csv", "b.csv"], ["."]])
def test_files_of_questions_are_not_taken_for_logs(run, here, named):
    for file in ("a.csv", "b.csv"):
        questions(here / file)
    code, out, err = run("init", *named)
    assert (code, out) == (2, "")
    assert "a.csv: no column holds a score" in err
    assert "of questions that are still to be asked name one file" in err
    rows = [f"{i},what is {i}?,{i % 2}" for i in range(20)]
    for file in ("a.csv", "b.csv"):
        (here / file).write_text("\n".join(["id,question,score", *rows]))
        rows = [row[:-1] + "1" for row in rows]
    code, out, err = run("init", *named)
    assert (code, err) == (0, "")
    assert f"whyprompt effect {' '.join(named)}" in out


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_column_called_id_names_the_item_only_where_no_two_rows_share_one(here, repeats):
    rows = [f"{i // repeats},what is {i}?,{i}" for i in range(20)]
    (here / "q.csv").write_text("\n".join(["id,question,answer", *rows]))
    assert ("item_id" in look_at_questions(here / "q.csv").columns) == (repeats == 1)


@pytest.mark.parametrize("answers", ["x", "0"])
def test_effect_of_questions_says_that_they_are_still_to_be_asked(run, here, answers):
    file = here / "my q.csv"
    rows = [f"what is {i}?,{i if answers == '0' else answers}" for i in range(20)]
    file.write_text("\n".join(["question,answer", *rows]))
    code, out, err = run("effect", "my q.csv")
    assert (code, out) == (2, "")
    assert "of questions that are still to be asked: whyprompt init 'my q.csv'" in err
    assert run("init", "my q.csv")[0] == 0


def test_a_file_that_is_there_is_left_alone(run, here):
    (here / "study.yaml").write_text("mine")
    assert run("init")[0] == 2
    assert (here / "study.yaml").read_text() == "mine"
    # Also where what would replace it is no valid study.
    assert run("init", "--overwrite", "--outcomes", "exact")[0] == 2
    assert (here / "study.yaml").read_text() == "mine"
    assert run("init", "--overwrite")[0] == 0


def test_behind_an_endpoint_what_is_measured_reads_a_completion(run, here):
    questions(here / "q.csv")
    words = ("--endpoint", "https://h/v1", "--model", "m", "--key-env", "MY_KEY")
    assert run("init", "q.csv", *words)[0] == 0
    study = load_study(here / "study.yaml")
    assert [o.name for o in study.outcomes] == ["numeric_match"]
    assert (study.model.name, study.model.key.env) == ("m", "MY_KEY")


def test_on_a_terminal_it_asks_and_elsewhere_it_never_does(here, monkeypatch, capsys):
    questions(here / "q.csv")
    answers = iter(["q.csv", "direct,cot", "", "gpt2"])
    asked = []

    def prompt(text, **options):
        asked.append(text)
        return next(answers) or options["default"]

    monkeypatch.setattr(verb.typer, "prompt", prompt)
    monkeypatch.setattr("sys.argv", ["whyprompt", "init"])
    with pytest.raises(SystemExit):
        main()
    assert asked == []
    (here / "study.yaml").unlink()
    monkeypatch.setattr(verb, "_on_terminal", lambda: True)
    with pytest.raises(SystemExit):
        main()
    assert len(asked) == 4
    study = load_study(here / "study.yaml")
    assert (list(study.arms), study.model.name) == (["direct", "cot"], "gpt2")
    capsys.readouterr()


@pytest.mark.parametrize("words", [(), ("q.csv",), ("q.csv", "--endpoint", "https://h/v1", "--model", "m")])
def test_what_comments_offer_is_a_key_that_there_is(run, here, words):
    questions(here / "q.csv")
    assert run("init", *words)[0] == 0
    schema = json.dumps(study_json_schema())
    offered = re.findall(r"^\s*#\s+-? ?\{?([a-z_]+): ", (here / "study.yaml").read_text(), re.MULTILINE)
    assert {"reps", "contrast"} <= set(offered)
    assert all(f'"{key}"' in schema for key in offered)


@pytest.mark.parametrize(("each", "shots"), [(8, 1), (12, 3)])
def test_few_questions_of_a_kind_lend_one_example(run, here, each, shots):
    rows = [f"what is {i}?,{i},{'ab'[i % 2]}" for i in range(2 * each)]
    (here / "q.csv").write_text("\n".join(["question,answer,topic", *rows]))
    assert run("init", "q.csv")[0] == 0
    assert load_study(here / "study.yaml").arms["few_shot"].shots == shots


def tickets(path, outcome, **columns):
    rows = [
        {"prompt_version": "ab"[i % 2], "hard": i % 7, outcome: int(i % 3 > 0), "tokens_out": 40 + i % 11}
        for i in range(60)
    ]
    pd.DataFrame(rows).assign(**columns).to_csv(path, index=False)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("outcome", ["resolved", "solved", "ok", "is_solved"])
def test_an_outcome_by_another_of_its_names_gets_its_command(run, outcome):
    tickets("log.csv", outcome, topic=["x", "y", None] * 20)
    code, out, _ = run("init", "log.csv")
    assert code == 0
    assert f"--outcome {outcome} --treated b --control a --confounders hard\n" in out
    assert out.endswith("Left out: 'topic', 20 of its values are missing; --impute 20 fills them.\n")


@pytest.mark.usefixtures("here")
def test_where_no_outcome_is_known_by_its_name_what_it_may_be_is_said(run):
    tickets("log.csv", "happy", question="q", prompt="p")
    said = (
        "whyprompt effect log.csv --outcome OUTCOME, where OUTCOME is one of happy (0 or 1), hard (0 to 6.00)"
    )
    code, out, err = run("init", "log.csv")
    assert (code, out) == (2, "")
    assert "no column is called as an answer is" in err
    assert f"of trials that were run name the outcome: {said}" in err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("given", [("--outcome", "happy"), ("--treatment", "prompt_version")])
def test_what_is_named_is_kept_and_the_rest_proposed(run, given):
    tickets("log.csv", "happy" if given[1] == "happy" else "solved")
    _, _, err = run("effect", "log.csv")
    if given[1] == "happy":
        assert "log.csv --outcome OUTCOME, where OUTCOME is one of happy (0 or 1)" in err
    code, _, err = run("effect", "log.csv", *given)
    assert code == 2
    command = err.partition("hint: ")[2].strip()
    assert " ".join(given) in command
    assert command.endswith("--treated b --control a --confounders hard")
    assert run(*command.split()[1:])[0] == 0


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--outcome", "happ"), "did you mean 'happy'?"),
        (("--outcome", "topic"), "column 'topic' cannot be the outcome: it holds text"),
        (("--outcome", "one"), "column 'one' cannot be the outcome: it is the same in every row"),
        (("--treatment", "row"), "column 'row' has 60 levels, and arms are 2 to 12"),
        (("--treatment", "prompt_version"), "log.csv --treatment prompt_version --outcome OUTCOME, where"),
        (("--outcome", "happy", "--level", "0.9"), "whyprompt effect log.csv proposes them"),
    ],
)
def test_what_is_named_in_part_and_cannot_be_is_refused_by_name(run, given, said):
    tickets("log.csv", "happy", topic=list("xyz") * 20, one=1, row=range(60))
    code, _, err = run("effect", "log.csv", *given)
    assert (code, said in err) == (2, True)


@pytest.mark.parametrize(
    ("column", "row", "said"),
    [("answer", 3, "row 3 has an empty answer ('answer')"), ("question", 1, "row 1 has an empty question")],
)
@pytest.mark.parametrize("file", ["q.csv", "q.jsonl"])
def test_a_question_without_an_answer_is_refused_at_once(run, here, file, column, row, said):
    rows = [{"question": f"what is {i}?", "answer": str(i)} for i in range(20)]
    rows[row - 1][column] = "" if file == "q.csv" else " "
    frame = pd.DataFrame(rows)
    frame.to_csv(file, index=False) if file == "q.csv" else frame.to_json(file, orient="records", lines=True)
    code, out, err = run("init", file)
    assert (code, out, f"{file}: {said}" in err) == (2, "", True)
    assert [path.name for path in here.iterdir()] == [file]


def test_what_is_taken_without_examples_is_all(run, here):
    questions(here / "q.csv", n=12)
    assert "on the 12 questions of q.csv (" in run("init", "q.csv", "--arms", "direct,json")[1]
