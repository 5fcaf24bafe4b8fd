"""``whyprompt mediate`` of logs and tables: planted effects in closed form, and every bad input."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pandas as pd
import pytest

import whyprompt as wp
from whyprompt.errors import DataError

N = 40


def rows(n=N, *, slope=0.05, gain=0.2, seed=0):
    """Give trials whose score is what the arm adds, so much a word, and how hard the item is: no noise."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        for arm, base in (("direct", 5), ("cot", 15)):
            words = int(base + rng.integers(0, 12))
            found.append(
                {
                    "item_id": f"q{k:02d}",
                    "arm": arm,
                    "completion": " ".join(["so"] * words),
                    "score": slope * words + gain * (arm == "cot") - (k * k % 7),
                    "template": f"t{k % 10}",
                    "level": float(k % 3),
                    "files": float(words + rng.integers(0, 4)),
                }
            )
    return found


def delta(trials):
    """Give the mean difference of the words."""
    words = pd.DataFrame(trials).assign(w=lambda f: f["completion"].str.split().str.len())
    by = words.groupby("arm")["w"].mean()
    return by["cot"] - by["direct"]


@pytest.fixture
def written(tmp_path):
    def write(trials, name="log.jsonl", **renamed):
        frame = pd.DataFrame(trials).rename(columns=renamed)
        path = tmp_path / name
        if path.suffix == ".csv":
            frame.to_csv(path, index=False)
        elif path.suffix == ".parquet":
            frame.to_parquet(path)
        else:
            path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))
        return path

    return write


@pytest.fixture
def found(run):
    def read(*arguments):
        code, out, err = run("mediate", *arguments, "--json")
        assert (code, err) == (0, ""), err
        return json.loads(out)

    return read


def part(result, label, by):
    return next(row for row in result["parts"] if (row["label"], row["by"]) == (label, by))


def test_a_log_needs_no_option_and_its_parts_are_those_that_were_planted(written, found):
    trials = rows()
    result = found(written(trials), "--mediators", "words")
    assert result["estimate"] == pytest.approx(0.05 * delta(trials) + 0.2, abs=1e-9)
    for label, value in (("nie", 0.05 * delta(trials)), ("nde", 0.2), ("pure_nie", 0.05 * delta(trials))):
        assert part(result, label, "words")["estimate"] == pytest.approx(value, abs=1e-9)
    assert result["logs"]["arms"] == ["direct", "cot"]
    assert result["sentence"].startswith(f"{result['read']}\n'cot' in place of 'direct' changes score by")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl"])
def test_a_tables_columns_are_named_and_what_is_not_named_it_shows(written, found, name):
    trials = rows()
    path = written(trials, name, item_id="question_id", arm="kind_of_prompt", completion="said", score="y")
    named = ("--treatment", "kind_of_prompt", "--outcome", "y", "--text", "said")
    result = found(path, *named)
    same = wp.text_mediation(pd.DataFrame(trials), outcome="score", treated="cot", control="direct")
    assert part(result, "nie", "length")["estimate"] == pytest.approx(same.part("nie").estimate, abs=1e-12)
    assert part(result, "nie", "length")["ci_high"] == pytest.approx(same.part("nie").ci_high, abs=1e-12)
    turned = found(path, *named, "--treated", "direct")
    assert turned["estimate"] == pytest.approx(-result["estimate"], abs=1e-12)
    assert part(turned, "nie", "length")["estimate"] == pytest.approx(
        -same.part("pure_nie").estimate, abs=1e-9
    )


def test_two_of_three_arms_are_named(written, found, run):
    trials = rows() + [row | {"arm": "other", "score": 9.0} for row in rows() if row["arm"] == "cot"]
    path = written(trials, "t.csv")
    named = (path, "--treatment", "arm", "--outcome", "score", "--mediators", "words")
    code, _, err = run("mediate", *named)
    assert (code, "has 3 levels" in err, "--treated NAME --control NAME" in err) == (2, True, True)
    result = found(*named, "--treated", "cot", "--control", "direct")
    assert part(result, "nde", "words")["estimate"] == pytest.approx(0.2, abs=1e-9)


def test_options_are_those_of_the_function(written, found):
    trials = [row | {"score": row["score"] + 0.1 * np.sin(7 * k)} for k, row in enumerate(rows())]
    more = np.random.default_rng(1).integers(0, 2, len(trials))
    trials = [
        row | {"completion": row["completion"] + ". Yes" * n} for row, n in zip(trials, more, strict=True)
    ]
    path = written(trials)
    options = ("--covariates", "level", "--cluster", "template", "--level", "0.9", "--seed", "4")
    asked = ("--mediators", "size=words+files,marker:. Yes", "--no-interaction")
    result = found(path, *asked, *options)
    same = wp.text_mediation(
        wp.read_trials(path),
        {"size": ["words", "files"], "marker:. Yes": ["marker:. Yes"]},
        covariates=["level"],
        cluster="template",
        interaction=False,
        level=0.9,
        random_state=4,
    )
    assert result["parts"] == json.loads(json.dumps(same.to_dict()["parts"]))
    # Each of them says something.
    for k in (*range(0, len(options), 2), None):
        fewer = (*asked[:2], *options) if k is None else (*asked, *options[:k], *options[k + 2 :])
        assert found(path, *fewer)["parts"] != result["parts"]


def test_what_undoes_it_is_said_and_is_what_another_correlation_gives(written, run):
    trials = [row | {"score": row["score"] + 0.3 * np.sin(7 * k)} for k, row in enumerate(rows())]
    code, out, _ = run("mediate", written(trials), "--mediators", "words")
    row = wp.text_mediation(wp.read_trials(written(trials)), "words").part("nie")
    assert code == 0
    line = next(text for text in out.splitlines() if text.split()[:2] == ["words", "nie"] and "%" in text)
    at = [float(cell) for cell in line.split()[4:]]
    rhos = (-0.5, -0.3, -0.1, 0.1, 0.3, 0.5)
    by_hand = [row.estimate - row["per_rho"] * r / (1 - r * r) ** 0.5 for r in rhos]
    assert at == pytest.approx(by_hand, rel=5e-3)
    assert line.split()[2] == f"{100 * row['robustness_value']:.2g}%"


def test_logs_that_were_read_without_texts_are_measured_as_they_are_read_again(written):
    path = written(rows())
    whole, bare = (wp.text_mediation(wp.read_trials(path, texts=texts), draws=50) for texts in (True, False))
    assert "completion" not in wp.read_trials(path, texts=False).frame
    assert [row.estimate for row in bare.parts] == [row.estimate for row in whole.parts]
    assert bare.sentence == whole.sentence
    before = wp.read_trials(path, texts=False)
    written([row | {"score": row["score"] + 1} for row in rows()])
    with pytest.raises(DataError, match="other trials than were read"):
        wp.text_mediation(before, draws=50)


def test_a_table_that_is_no_log_is_shown_with_the_command_that_asks(written, run, found):
    path = written(rows(), "t.csv", score="converted")
    for options in ((), ("--treatment", "arm", "--mediators", "words"), ("--outcome", "converted")):
        code, out, err = run("mediate", path, *options)
        assert code == 2
        assert "change in 'converted', and how much of that goes through the length of the answers?" in out
        assert "nothing was estimated" in err
    command = f"whyprompt mediate {path} --treatment arm --outcome converted --treated cot --control direct"
    assert f"{command} --unit item_id" in out
    # What is proposed runs as it stands.
    assert found(*shlex.split(f"{command} --unit item_id")[2:])["items"] == N


def test_what_is_proposed_needs_items_under_both_arms(written, run):
    trials = [row | {"item_id": f"{row['item_id']}-{row['arm']}"} for row in rows()]
    code, out, err = run("mediate", written(trials, "t.csv", score="converted"))
    assert (code, out) == (2, "")
    assert "no column tells items that ran under both arms of 'arm'" in err
    assert "--unit question_id" in err


REFUSED = {
    "no such feature": (("--mediators", "tone"), "'tone' is neither a column"),
    "a feature twice": (("--mediators", "words,words"), "--mediators names 'words' twice"),
    "no feature": (("--mediators", ","), "--mediators names nothing"),
    "nothing in several": (("--mediators", "size="), "--mediators 'size=' names no column"),
    "constant": (("--mediators", "json"), "'json' is 0 in every row"),
    "no such cluster": (("--cluster", "zzz"), "'zzz'"),
    "no such covariate": (("--covariates", "zzz"), "'zzz'"),
    "a covariate that the arm moves": (("--covariates", "files"), "differs between rows of one item"),
    "a level": (("--level", "95"), "level"),
    "no such arm": (("--treated", "zzz"), "'zzz'"),
    "an arm against itself": (("--treated", "cot", "--control", "cot"), "both 'cot'"),
    "what only a study has": (("--flips", "3"), "--flips has no meaning with a table or logs"),
    "where results lie": (("--out", "runs"), "--out has no meaning with a table or logs"),
    "a column of a table": (("--unit", "item_id"), "--unit has no meaning without --treatment"),
    "no outcome": (("--treatment", "arm", "--unit", "item_id"), "--outcome must be given"),
    "no such outcome": (("--treatment", "arm", "--outcome", "zzz"), "'zzz'"),
    "no such treatment": (("--treatment", "zzz", "--outcome", "score"), "'zzz'"),
    "no such unit": (("--treatment", "arm", "--outcome", "score", "--unit", "zzz"), "'zzz'"),
    "a scorer of a table": (
        ("--treatment", "arm", "--outcome", "score", "--scorer", "score"),
        "--scorer has no meaning with columns named by",
    ),
    "no text": (("--text", "zzz"), "no column 'zzz'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_refused_by_its_option(written, run, name):
    options, said = REFUSED[name]
    code, out, err = run("mediate", written(rows()), *options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert not {"mediators=", "treated=", "interaction=", "text="} & set(err.split())


def test_a_message_names_the_switch_of_the_verb(written, run):
    trials = [row | {"same": row["files"] * 2} for row in rows()]
    code, _, err = run("mediate", written(trials), "--mediators", "files,same")
    assert code == 2
    assert "or use --no-interaction" in err


def test_rows_of_different_items_are_refused(written, run):
    trials = [row | {"item_id": f"{row['item_id']}-{row['arm']}"} for row in rows()]
    code, _, err = run("mediate", written(trials, "t.csv"), "--treatment", "arm", "--outcome", "score")
    assert (code, "no column tells items that ran under both 'cot' and 'direct'" in err) == (2, True)
    code, _, err = run("mediate", written(trials))
    assert (code, "ran under both" in err) == (2, True)


def test_several_tables_and_a_study_beside_a_log_are_refused(written, run, tmp_path):
    one, other = written(rows(), "a.csv"), written(rows(), "b.csv")
    code, _, err = run("mediate", one, other, "--treatment", "arm", "--outcome", "score")
    assert (code, "several files are given" in err) == (2, True)
    study = tmp_path / "s.yaml"
    study.write_text("name: s\n")
    code, _, err = run("mediate", study, one)
    assert (code, "is a study, and stands alone" in err) == (2, True)
    code, _, err = run("mediate", study, "--mediators", "words")
    assert (code, "--mediators has no meaning with a study" in err) == (2, True)
