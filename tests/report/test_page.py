"""The page is well formed, self-contained, and holds exactly the values of the results."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from page_reader import body, read, said_twice
from report_study import GRAPH, HOSTILE, MANIFEST, make_frame, make_mediation, make_picture, make_study

from whyprompt import study_effect, text_mediation
from whyprompt._words import format_number
from whyprompt.answers.chains import Chains, text_study
from whyprompt.charts import gain_harm_plot
from whyprompt.charts.style import GRID, INK, MUTED
from whyprompt.effects.checks.hidden import sensitivity_report
from whyprompt.effects.headline import headline
from whyprompt.effects.outlook import harmed, settles, sure
from whyprompt.errors import DataError, StoreError, WhypromptError
from whyprompt.mediation.engine.sites import as_site
from whyprompt.page.page import MAX_BYTES, build_report, write_report
from whyprompt.study import Contrast, MediationSettings
from whyprompt.trials.items.item import Item

ORDER = [
    "The answer",
    "Effects",
    "Items that changed",
    "Inside the model: which heads carry it",
    "The two levels joined",
    "Design and data",
    "If one had only logs",
    "What may not be claimed",
    "How to reproduce it",
]


@pytest.fixture(scope="module")
def page(small):
    return read(small.page)


def test_the_page_is_well_formed_and_in_order(page):
    assert [text for tag, text in page.headings if tag == "h2"] == ORDER
    assert len([1 for tag, _ in page.headings if tag == "h1"]) == 1
    assert len(page.ids) == len(set(page.ids))


def test_a_page_of_the_command_line_names_the_studys_keys(small, page):
    from whyprompt.cli.flags import in_keys

    made = build_report(small.effect, None, MANIFEST, small.study, words=in_keys)
    assert "items from one template need cluster=" in page.words
    assert "items from one template need items.columns.cluster" in read(made).words
    # The results behind the page are the library's.
    assert "need cluster=" in read(made).scripts["results"]


def test_no_sentence_stands_twice(page):
    assert len(page.sentences) > 100
    assert said_twice(page) == []


def test_the_title_is_the_question_and_the_answer_begins_from_what_to_what(small, page):
    (title,) = [text for tag, text in page.headings if tag == "h1"]
    assert title == small.study.question
    # The question names the arms, or the picture does.
    first = headline(small.effect.main, arms=False)
    answer = small.page[small.page.index('id="answer"') : small.page.index("<nav")]
    lead = re.search(r'<p class="lead">(.*?)</p>', answer)[1].replace("&#39;", "'")
    assert lead == first
    # And the command line's.
    assert small.effect.summary().split("\n\n")[:2] == [title, headline(small.effect.main)]
    for said in (sure(small.effect.main), settles(small.effect.main), harmed(small.effect.main)):
        assert " ".join(said.split()) in read(f"<section {answer}").words
    assert answer.count("<svg") == 2


def test_a_study_without_a_question_asks_it_by_its_arms(small):
    study = make_study(question=" ", mediation=None)
    page = read(build_report(study_effect(study, small.frame), None, MANIFEST, study))
    assert ("h1", "Does 'shots' instead of 'direct' change 'log_prob'?") in page.headings


def test_what_is_referred_to_exists(page):
    ids = set(page.ids)
    for tag, name, value in page.attributes:
        if name == "href" and value.startswith("#"):
            assert value[1:] in ids, (tag, value)
        elif name in {"for", "aria-labelledby", "aria-describedby"}:
            assert set(value.split()) <= ids, (tag, name, value)
        for found in re.findall(r"url\(#([^)]+)\)", value):
            assert found in ids, (tag, name, value)


def test_nothing_is_loaded_from_outside(small, page):
    for tag, name, value in page.attributes:
        if name.startswith("xmlns"):
            continue
        assert "//" not in value or name in {"aria-label", "data-say"}, (tag, name, value)
        if name in {"src", "href", "xlink:href", "data", "action", "poster", "srcset"}:
            assert value.startswith(("#", "data:")), (tag, name, value)
    rest = re.sub(r"""xmlns(:xlink)?=("[^"]*"|'[^']*')""", "", small.page)
    assert "http" not in re.sub(r"http-equiv", "", rest)
    assert "@import" not in rest
    assert not re.search(r"url\((?!#)", rest)
    assert len(small.page.encode()) < MAX_BYTES / 2


def test_text_from_prompts_and_models_is_never_markup(small, page):
    assert HOSTILE not in small.page
    assert HOSTILE in page.words
    assert "window.broken" not in page.scripts[""]
    assert "</script>" in json.loads(page.scripts["head-data"])["pictures"][0]["tokens"]


def test_embedded_results_are_those_of_the_library(small, page):
    found = json.loads(page.scripts["results"])
    assert found["effect"] == json.loads(json.dumps(small.effect.to_dict()))
    assert found["mediation"] == json.loads(json.dumps(small.mediation.to_dict()))


def test_sentences_are_those_of_the_results(small, page):
    said = [small.effect.sentence, small.effect.draw.sentence, small.effect.audit.sentence]
    said += [small.mediation.search.sentence, small.mediation.main.inference.sentence]
    for sentence in said:
        assert " ".join(sentence.split()) in page.words
    # What holds of every sweep is said of the first.
    for inference in small.mediation.differences.values():
        for one in inference.sentence.split(". "):
            assert one.rstrip(".") in page.words


def test_effect_tables_hold_the_exact_values(small, page):
    main = small.effect.main
    rows = body(page.tables["effects"])
    assert rows["all items"] == [main.n_pairs, main.estimate, main.ci_low, main.ci_high, main.p_value]
    for part in main.parts:
        expected = [part.n_used, part.estimate, part.ci_low, part.ci_high, part.p_adjusted]
        assert rows[part.label] == expected
    other = small.effect.outcomes["exact_match"]
    others = body(page.tables["others"])
    family = {(row.label, row.by): row for row in small.effect.family}
    row = family["exact_match", "shots - direct"]
    assert others["exact_match"] == [
        other.estimate, other.ci_low, other.ci_high, row.simultaneous_low, row.simultaneous_high,
        other.p_value, row.p_adjusted,
    ]  # fmt: skip
    assert others["log_prob"][0] == main.estimate
    arm = small.effect.arms["other"]
    assert others["log_prob, arm other"][0] == arm.estimate
    assert others["log_prob, arm other"][-1] == family["log_prob", "other - direct"].p_adjusted
    spread = body(page.tables["spread"])
    assert [spread["repetition 0"], spread["repetition 1"]] == [
        [part.estimate] for part in small.effect.spread.parts
    ]


def test_what_is_read_is_what_is_behind_it(page):
    """Every number shown is its exact value, to the digits shown."""
    checked = 0
    for name, rows in page.tables.items():
        for text, value in (cell for row in rows for cell in row):
            if value is None:
                continue
            checked += 1
            shown = text.replace("−", "-").replace(",", "")
            if shown.endswith("%"):
                assert float(shown[:-1]) == pytest.approx(100 * value, abs=0.51), (name, text, value)
            elif shown.startswith("<"):
                assert value < float(shown[1:]), (name, text, value)
            else:
                assert float(shown) == pytest.approx(value, rel=0.051), (name, text, value)
    assert checked > 150


def test_logs_and_balance_hold_the_exact_values(small, page):
    d, a = small.effect.draw, small.effect.audit
    rows = body(page.tables["draw"])
    assert rows["plain difference"] == [d.naive.estimate, d.naive.ci_low, d.naive.ci_high]
    adjusted = [d.adjusted.estimate, d.adjusted.ci_low, d.adjusted.ci_high]
    assert rows[f"adjusted, by {d.adjusted.method}"] == adjusted
    assert rows["truth, same items"][0] == d.truth
    assert rows["truth, all items"][0] == d.truth_all
    rows = body(page.tables["audit"])
    for row in a.parts:
        assert rows[row.label][0] == row.estimate
        assert rows[row.label][4] == row["coverage"]
    rows = body(page.tables["balance-draw"])
    for row in d.adjusted.balance:
        assert rows[row.covariate][:2] == [row.smd_before, row.smd_after]


def test_who_gains_is_counted_from_the_differences(small, page):
    main = small.effect.main
    change = main.items.treated - main.items.control
    tasks = np.array([u.rsplit("-", 1)[0] for u in main.items.units])
    for task, cells in body(page.tables["who"]).items():
        part = change[tasks == task]
        assert cells[:4] == [len(part), (part > 0).sum(), (part < 0).sum(), (part == 0).sum()]
        assert cells[4:] == [part.max(), part.min()]


def test_sensitivity_is_that_of_the_library(small, page):
    found = sensitivity_report(small.effect.draw.table, small.effect.draw.adjusted)
    rows = body(page.tables["sensitivity"])
    assert rows["E-value of the estimate"] == [found.checks["E-value"].part("E-value").estimate]
    assert rows["robustness value"] == [found.checks["partial R2"]["robustness_value"]]
    gammas = body(page.tables["rosenbaum"])
    for bound in found.checks["Rosenbaum bounds"].parts:
        assert gammas[f"gamma {bound['gamma']:g}"][:2] == [bound["p_lower"], bound["p_upper"]]


def test_heads_hold_the_exact_values(small, page):
    i = small.mediation.main.inference
    rows = body(page.tables["heads"])
    best = int(np.argmax(np.abs(i.mean)))
    assert next(iter(rows)) == "head {}.{}".format(*i.heads[best])
    for name, cells in rows.items():
        at = i.heads.index(tuple(map(int, re.findall(r"\d+", name))))
        assert cells == [i.mean[at], *i.parts[at].ends, i.nde[at], i.q_value[at], i.parts[at].p_adjusted]
    search = body(page.tables["search"])
    for at, way in enumerate(("nie", "pure_nie")):
        assert [c[at] for c in search.values()] == small.mediation.search.searched[way].tolist()
        assert [c[2 + at] for c in search.values()] == small.mediation.search.held_out[way].tolist()


def test_the_script_gets_every_head_and_item(small, page):
    data = json.loads(page.scripts["head-data"])
    sweep = small.mediation.main.sweep
    assert [tuple(h) for h in data["heads"]] == list(sweep.heads)
    np.testing.assert_allclose(np.array(data["nie"]), sweep.nie.T, rtol=1e-5)
    import base64

    for picture, given in zip(small.mediation.attention, data["pictures"], strict=True):
        weights = np.frombuffer(base64.b64decode(given["weights"]), np.uint8).reshape(-1, given["n"])
        np.testing.assert_array_equal(weights[given["rows"]["8"]], np.round(255 * picture.mean_weights[8]))


def test_the_levels_are_joined_item_by_item(small, page):
    sweep = small.mediation.main.sweep
    first = small.frame[small.frame["rep"] == 0].set_index(["item_id", "arm"])["log_prob"]
    gap = max(
        abs(te - (first[i, "shots"] - first[i, "direct"]))
        for i, te in zip(sweep.item_ids, sweep.te, strict=True)
    )
    assert gap < 1e-9
    assert f"the largest difference between them is {format_number(gap, digits=2)}." in page.words
    rows = body(page.tables["levels"])
    for part in small.effect.main.parts:
        assert rows[part.label][0] == part.estimate


def test_a_study_whose_outcome_reads_what_is_written_has_the_length_of_its_answers():
    """The same outcome, read off probabilities, is not moved by a text that nobody scored."""
    frame = make_frame(reps=1)
    rng = np.random.default_rng(0)
    words = 4 + rng.integers(0, 6, len(frame)) + 2 * (frame["arm"] == "shots")
    frame = frame.assign(
        completion=[" ".join(["so"] * n) for n in words],
        token_f1=0.02 * words + rng.normal(0, 0.05, len(frame)),
        cluster=[name.rpartition("-")[2][0] + name[0] for name in frame["item_id"]],
    )
    effect = {"outcome": "token_f1", "contrast": {"treated": "shots", "control": "direct"}}
    study = make_study(reps=1, outcomes=["token_f1"], effect=effect, graph=None)
    found = read(build_report(study_effect(study, frame), None, MANIFEST, study))
    same = text_mediation(frame, outcome="token_f1", treated="shots", control="direct", cluster="cluster")
    nie = same.part("nie")
    assert same["units"] < same["items"]
    assert body(found.tables["answers"])["length"][:3] == [nie.estimate, nie.ci_low, nie.ci_high]
    assert json.loads(found.scripts["results"])["answers"]["parts"][0]["estimate"] == nie.estimate
    effect["outcome"] = "log_prob"
    other = make_study(reps=1, outcomes=["log_prob", "token_f1"], effect=effect, graph=None)
    plain = read(build_report(study_effect(other, frame), None, MANIFEST, other))
    assert "answers" not in plain.tables
    assert "answers" not in json.loads(plain.scripts["results"])


def test_limits_name_every_assumption_that_was_not_shown_to_hold(small, page):
    limits = small.page.split('id="limits"')[1].split("</details>")[0]
    words = read(f'<div id="limits"{limits}').words
    open_ones = [a for a in small.effect.main.assumptions if a.status != "holds"]
    assert open_ones
    for assumption in open_ones:
        assert repr(assumption.name) in words
    for warning in small.effect.audit.warnings:
        assert warning in words
    for warning in small.effect.main.warnings:
        assert (
            warning
            in read(small.page[small.page.index("<body") : small.page.index("<nav")] + "</main></body>").words
        )
    assert "do not; the joint effect" in words
    assert "the model 'tiny'" in words
    assert page.words.count("On the strength of this page nobody may claim") == 1


def test_the_noise_floor_counts_heads_above_it(small, page):
    floor = np.abs(small.mediation.placebo.inference.mean).max()
    above = int((np.abs(small.mediation.main.inference.mean) > floor).sum())
    assert above >= 2
    assert f"{above} of 15 heads exceed that" in page.words


def test_what_a_sweep_says_of_its_numbers_is_on_the_page(small, page):
    m = small.mediation
    noted = replace(m.main.sweep, notes=("numerical floor 2e-06: rounding", "z is before the <gate>"))
    found = replace(m, main=replace(m.main, sweep=noted))
    told = read(build_report(small.effect, found, MANIFEST, small.study))
    assert "Numerical floor 2e-06: rounding." in told.words
    assert "Z is before the <gate>." in told.words
    assert "Numerical floor" not in page.words


def test_without_pictures_words_and_tables_tell_everything(small, monkeypatch):
    monkeypatch.setattr("whyprompt.charts.render.can_render", lambda: False)
    bare = read(build_report(small.effect, small.mediation, MANIFEST, small.study))
    full = read(small.page)
    assert bare.tables == full.tables
    assert "vl-convert-python" in bare.words
    assert "Forest plot. all items:" in bare.words
    # The causal graph is drawn by whyprompt itself.
    assert sum(tag == "svg" and name == "viewbox" for tag, name, _ in bare.attributes) == 1


def test_without_the_internal_level_the_page_says_so(small, page):
    assert "whyprompt mediate STUDY.yaml" in page.words
    page = read(build_report(small.effect, None, MANIFEST, small.study))
    assert "whyprompt mediate" not in page.words
    kept = [title for title in ORDER if title not in {ORDER[3], ORDER[4]}]
    assert [text for tag, text in page.headings if tag == "h2"] == kept
    assert "the internal level was not run" in page.words.split("What may not be claimed")[-1]
    assert json.loads(page.scripts["head-data"]) is None


def test_an_observational_study_shows_its_own_balance_and_claims_no_truth():
    study = make_study(design="observational", effect={"outcome": "log_prob", "method": "ipw"}, reps=1)
    frame = make_frame(per_task=40, reps=1)
    rng = np.random.default_rng(2)
    chance = 1 / (1 + np.exp(-(frame["difficulty"] - 3) / 2))
    got = dict(zip(frame["item_id"], rng.random(len(frame)) < chance, strict=True))
    frame = frame[frame["arm"] == frame["item_id"].map(lambda i: "shots" if got[i] else "direct")]
    effect = study_effect(study, frame.reset_index(drop=True))
    page = read(build_report(effect, None, MANIFEST, study))
    rows = body(page.tables["balance-main"])
    for row in effect.main.balance:
        assert rows[row.covariate][:2] == [row.smd_before, row.smd_after]
    titles = [text for tag, text in page.headings if tag == "h2"]
    assert "Overlap and balance" in titles
    assert not {"If one had only logs", "Items that changed"} & set(titles)
    assert said_twice(page) == []
    assert body(page.tables["effects"])["overall"][1] == effect.main.estimate
    assert "sensitivity" in page.tables


def test_a_study_without_graph_audit_or_families(small):
    frame = small.frame.drop(columns="task_type")
    plan = make_study(graph=None, mediation=None, effect={"outcome": "log_prob"})
    page = read(build_report(study_effect(plan, frame), None, {}, plan))
    assert "not recorded" in page.words
    # What does not apply is gone, and leaves no title.
    assert [text for tag, text in page.headings if tag == "h2"] == [
        "The answer", "Effects", "Items that changed", "Design and data", "What may not be claimed",
        "How to reproduce it",
    ]  # fmt: skip
    for gone in ("causal graph", "audit", "Rosenbaum", "propensity", "overlap"):
        assert gone not in page.words
    assert said_twice(page) == []


def test_statistical_mediation_is_set_beside_the_intervention(small, page):
    c = small.mediation.comparison
    assert c.disagree.any()
    rows = body(page.tables["statistical"])
    for name, cells in rows.items():
        at = c.heads.index(tuple(map(int, re.findall(r"\d+", name))))
        expected = [v for e in (c.acme[at], c.nie[at]) for v in (e.estimate, e.ci_low, e.ci_high)]
        assert cells == [*expected, c.parts[at].p_adjusted]
    assert c.sentence in page.words
    assert "sequential ignorability" in page.words


def test_the_chain_measured_is_set_beside_the_chain_that_was_set(small):
    rng = np.random.default_rng(0)
    n = 24
    effect, words = rng.normal(1, 0.4, n), rng.integers(5, 60, (n, 2))
    chains = Chains(
        item_ids=tuple(f"i{k:02d}" for k in range(n)),
        clusters=tuple(f"i{k:02d}" for k in range(n)),
        own={"y11": effect.tolist(), "y00": [0.0] * n},
        worlds={
            "chain": {"y10": (0.2 * effect).tolist(), "y01": (0.7 * effect).tolist()},
            "length": {"y10": (0.9 * effect).tolist(), "y01": (0.05 * effect).tolist()},
        },
        chains=tuple((" so" * a, " so" * b) for a, b in words.tolist()),
        tokens=tuple((a, b) for a, b in words.tolist()),
        notes=("The format of the chain was not set: both arms have the same in every item.",),
    )
    saved = SimpleNamespace(
        study=small.study,
        settings=MediationSettings(text=["chain", "length"]),
        contrasts=[Contrast(treated="shots", control="direct")],
    )
    texts = text_study(saved, chains)
    page = read(build_report(small.effect, replace(small.mediation, texts=texts), MANIFEST, small.study))
    rows = body(page.tables["texts"])
    for name, cells in rows.items():
        nie, pure = (texts.set.part(label, by=name) for label in ("nie", "pure_nie"))
        assert cells[:3] == [nie.estimate, nie.ci_low, nie.ci_high]
        assert cells[4:7] == [pure.estimate, pure.ci_low, pure.ci_high]
        assert cells[3] == texts.set.part("nde", by=name).estimate
    assert list(rows) == ["chain", "length"]
    held = body(page.tables["texts-beside"])["length"]
    one = texts.beside.part("nie", by="length")
    assert held[:3] == [one["measured"], one["set"], one.estimate]
    for said in (texts.set.sentence, texts.measured.sentence, texts.beside.sentence, *texts.notes):
        assert said in page.words
    assert "Between prompt and answer: what the chain carries" in [text for _, text in page.headings]
    bare = read(build_report(small.effect, small.mediation, MANIFEST, small.study))
    assert "texts" not in bare.tables


def test_without_statistical_mediation_the_page_says_why(small, monkeypatch):
    monkeypatch.setattr("whyprompt.charts.render.can_render", lambda: False)
    bare = replace(small.mediation, comparison=None, comparison_note="3 sampling units are too few")
    page = read(build_report(small.effect, bare, MANIFEST, small.study))
    assert "not set beside the intervention: 3 sampling units are too few." in page.words
    bare = replace(bare, search=None, search_note="4 sampling units", placebo=None, differences={})
    page = read(build_report(small.effect, bare, MANIFEST, small.study))
    assert "No set of heads was searched for: 4 sampling units." in page.words
    assert "there is no noise floor" in page.words


def test_many_heads_and_a_long_prompt_still_fit(small):
    big = make_mediation(small.frame, layers=32, heads=32, swept=40)
    tokens = [f" w{i}" for i in range(900)]
    pictures = tuple(
        make_picture(big.main.sweep, arm, tokens, ["question"] * 900, k)
        for k, arm in enumerate(("direct", "shots"))
    )
    page = build_report(small.effect, replace(big, attention=pictures), MANIFEST, small.study)
    assert len(page.encode()) < MAX_BYTES
    data = json.loads(read(page).scripts["head-data"])
    kept = [len(p["rows"]) for p in data["pictures"]]
    assert kept[0] == kept[1] < 1024
    # The strongest heads are those that are kept.
    order = np.argsort(-np.abs(big.main.inference.mean), kind="stable")
    assert set(data["pictures"][0]["rows"]) == {str(i) for i in order[: kept[0]]}


def test_nothing_drawn_keeps_a_colour_that_a_dark_page_cannot_change(small):
    """Inks are found by their values and recoloured; black would be black on near-black."""
    drawn = re.findall(
        r'(?:fill|stroke)="([^"]+)"', "".join(re.findall(r"<svg.*?</svg>", small.page, re.DOTALL))
    )
    assert not {"black", "#000", "#000000", "gray"} & set(drawn)
    style = small.page[: small.page.index("</style>")]
    for ink in (INK, MUTED, GRID):
        assert f'[fill="{ink}"]' in style or f'[stroke="{ink}"]' in style


def test_a_page_that_cannot_be_small_is_refused(small, monkeypatch):
    monkeypatch.setattr("whyprompt.page.page.MAX_BYTES", 50_000)
    with pytest.raises(WhypromptError, match=r"more than 0\.05") as refused:
        build_report(small.effect, None, MANIFEST, small.study)
    # No heads were swept: there is nothing to sweep less of.
    assert "sweep" not in refused.value.hint
    with pytest.raises(WhypromptError) as refused:
        build_report(small.effect, small.mediation, MANIFEST, small.study)
    assert "sweep fewer contrasts" in refused.value.hint


def test_a_page_of_many_items_stays_small_and_every_item_is_in_its_picture():
    study = make_study(
        effect={"outcome": "log_prob", "contrast": {"treated": "shots", "control": "direct"}},
        arms={"direct": {"kind": "direct"}, "shots": {"kind": "few_shot", "shots": 2, "draw": "per_item"}},
        mediation=None,
    )
    frame = make_frame(per_task=4000)
    effect = study_effect(study, frame[frame["arm"] != "other"])
    assert effect.main.n_pairs == 12_000
    page = build_report(effect, None, MANIFEST, study)
    assert len(page.encode()) < MAX_BYTES / 2
    drawn = gain_harm_plot(effect.main).to_dict()
    rows = max(drawn["datasets"].values(), key=len)
    assert len(rows) < 1_600
    counted = sum(int(r["words"].split()[0]) if "items:" in r["words"] else 1 for r in rows)
    assert counted == 12_000
    seen = sum(
        int(r["words"].split()[0]) for r in rows if r["state"] == "seen to gain" and "items" in r["words"]
    )
    assert abs(seen - effect.main.items.seen_gain) <= 1


def test_results_of_another_study_are_refused(small):
    other = make_study(name="another")
    with pytest.raises(DataError, match="effect is of the study 'small_study'"):
        build_report(small.effect, None, MANIFEST, other)


def test_write_report_reads_a_results_folder(small, tmp_path, monkeypatch):
    monkeypatch.setattr("whyprompt.trials.run.load_trials", lambda _study, _folder: small.frame)
    monkeypatch.setattr("whyprompt.answers.internal.load_mediation", lambda *_: small.mediation)
    import yaml

    plan = small.study.model_dump(mode="json", exclude_defaults=True)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(plan | {"graph": GRAPH}, sort_keys=False))
    folder = tmp_path / "results"
    folder.mkdir()
    with pytest.raises(StoreError, match="whyprompt run STUDY"):
        write_report(file, folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="is not JSON"):
        write_report(file, folder)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    path = write_report(file, folder)
    assert path == folder / "report.html"
    assert path.read_text(encoding="utf-8") == small.page
    assert not list(folder.glob("*.part"))
    monkeypatch.setattr("whyprompt.charts.render.can_render", lambda: False)
    elsewhere = write_report(file, folder, target=tmp_path / "page.html")
    assert elsewhere.is_file()
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(file, folder, target=tmp_path / "absent" / "page.html")


def test_items_that_changed_have_both_prompts_and_answers_side_by_side():
    settings = {"outcome": "exact_match", "contrast": {"treated": "shots", "control": "direct"}}
    study = make_study(graph=None, mediation=None, effect=settings, outcomes=["exact_match"], reps=1)
    frame = make_frame(reps=1)
    frame["completion"] = [f"{arm} says {i}" for arm, i in zip(frame["arm"], frame["item_id"], strict=True)]
    effect = study_effect(study, frame)
    own = [
        Item(item_id=i, question=HOSTILE, answer=f"gold of {i}", task_type="sums")
        for i in frame["item_id"].unique()
    ]
    text = build_report(effect, None, MANIFEST, study, items=own)
    items = effect.main.items
    for way, word in ((1, "higher"), (-1, "lower")):
        n = int((way * items.changes > 0).sum())
        assert f"Items whose outcome is {word} under &#39;shots&#39;: {n}" in text
    unit = items.units[int(np.flatnonzero(items.changes > 0)[0])]
    part = text[text.index(f"<summary>{unit}: 0 → 1.00</summary>") :]
    part = part[: part.index("</details>")]
    assert f'<p>The right answer:</p><pre tabindex="0">gold of {unit}</pre>' in re.sub(r">\s+<", "><", part)
    left, right = part[part.index('class="sides"') :].split('<div class="side">')[1:]
    assert "(direct)" in left
    assert "(shots)" in right
    assert f"direct says {unit}" in left
    assert f"shots says {unit}" in right
    assert 'type="search"' in text
    assert said_twice(read(text)) == []
    assert "No answers were written" not in text


def test_outcomes_that_are_read_off_probabilities_leave_no_answers_and_say_what_would():
    settings = {"outcome": "exact_match", "contrast": {"treated": "shots", "control": "direct"}}
    study = make_study(graph=None, mediation=None, effect=settings, outcomes=["exact_match"], reps=1)
    text = build_report(study_effect(study, make_frame(reps=1)), None, MANIFEST, study)
    assert "No answers were written: these outcomes are read off the probabilities" in text
    assert "such as string_match" in text


BESIDE = [f"{kind} {layer}" for kind in ("attn", "mlp", "resid") for layer in range(5)]
BESIDE += ["neuron 1.20", "neuron 3.7"]


def test_what_was_set_beside_the_heads_has_a_picture_and_a_table(small, monkeypatch):
    monkeypatch.setattr("whyprompt.charts.render.can_render", lambda: False)
    found = make_mediation(small.frame, beside=BESIDE)
    page = read(build_report(small.effect, found, MANIFEST, small.study))
    inference = found.main.inference
    rows = body(page.tables["sites"])
    assert list(rows)[:5] == [f"attn {layer}" for layer in (4, 3, 2, 1, 0)]
    assert set(rows) == set(BESIDE)
    for name, cells in rows.items():
        at = inference.sites.index(as_site(name))
        part = inference.parts[at]
        wanted = [part.estimate, *part.ends, inference.nde[at], inference.q_value[at], part.p_adjusted]
        assert cells == wanted
    # Heads are shown as ever, whatever stands beside them; the family is all of them.
    assert next(iter(body(page.tables["heads"]))) == "head 1.1"
    assert all(name.startswith("head ") for name in body(page.tables["heads"]))
    data = json.loads(page.scripts["head-data"])
    assert len(data["heads"]) == len(data["nie"]) == len(inference.heads)
    assert data["chosen"] == 4
    assert inference.sentence in page.words
    assert f"{len(inference.heads)} heads and 17 other sites were tested" in page.words
    assert "after the last layer it holds the whole effect by definition" in page.words


def test_an_answer_with_other_sites_tells_them_apart(small):
    found = make_mediation(small.frame, beside=BESIDE)
    told = found.to_dict()
    assert {tuple(row)[:2] for row in told["heads"]} == {("layer", "head")}
    assert told["sites"][0]["site"] == "resid 4"
    assert len(told["sites"]) == len(BESIDE)
    text = found.summary()
    assert re.search(r"^  site +NIE", text, re.MULTILINE)
    assert re.search(r"^  head 1\.1 +0\.\d+ ", text, re.MULTILINE)
    assert re.search(r"^  neuron 3\.7 +\d", text, re.MULTILINE)
    assert re.search(r"^  head     NIE", small.mediation.summary(), re.MULTILINE)
