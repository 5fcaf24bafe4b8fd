"""The page in a real browser: headless Chromium, with its network cut."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from report_study import MANIFEST, make_frame, make_study

from whyprompt.effects.headline import headline

selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install 'whyprompt[dev]'")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no headless Chromium here: apt-get install chromium chromium-driver",
    ),
]

PHONE = (390, 844)
DESK = (1280, 900)


@pytest.fixture(scope="module")
def url(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(small.page, encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        # No name resolves: whatever the page asked for would fail and be logged.
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def visit(browser, url):
    """Open the page anew: a size, a colour scheme, a medium, with or without scripts."""

    def open_page(size=DESK, *, scheme="light", media="", scripts=True, where=url, parts=True):
        browser.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500},
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        browser.get_log("browser")
        browser.get(where)
        if parts and scripts:
            browser.execute_script("document.querySelectorAll('.part').forEach(d => { d.open = true; })")
        return browser

    return open_page


# ------------------------------------------------------------------------------------- the first screen
@pytest.fixture(scope="module")
def pages(small, tmp_path_factory):
    """Give pages of every kind: a study of log-probabilities, a 0/1 one, and a log with confounders."""
    import whyprompt as wp
    from whyprompt import study_effect
    from whyprompt.page.page import build_report

    folder = tmp_path_factory.mktemp("pages")
    settings = {"outcome": "exact_match", "contrast": {"treated": "shots", "control": "direct"}}
    study = make_study(graph=None, mediation=None, effect=settings, outcomes=["exact_match"], reps=1)
    frame = make_frame(per_task=32, reps=1)
    frame["completion"] = [
        f"{arm} says {item}" for arm, item in zip(frame["arm"], frame["item_id"], strict=True)
    ]
    binary = study_effect(study, frame)
    rng = np.random.default_rng(3)
    rows = [
        {
            "item_id": f"q{k}",
            "question": f"What is {k} + 1?" + " Then add 7." * int(rng.integers(0, 4)),
            "arm": "cot" if k % 3 else "direct",
            "score": int(rng.random() < (0.7 if k % 3 else 0.4)),
        }
        for k in range(300)
    ]
    log = folder / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)))
    found = wp.read_trials(log)
    confounded = wp.log_effect(found)
    (folder / "binary.html").write_text(build_report(binary, None, MANIFEST, study))
    (folder / "small.html").write_text(small.page)
    wp.write_report(found, confounded, target=folder / "log.html")
    first = {"binary": binary.main, "small": small.effect.main, "log": confounded}
    return {
        name: ((folder / f"{name}.html").as_uri(), headline(main, arms=False)) for name, main in first.items()
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (768, 1024), PHONE])
@pytest.mark.parametrize("name", ["binary", "small", "log"])
def test_the_answer_stands_on_the_first_screen(visit, pages, name, size, scheme):
    where, first = pages[name]
    driver = visit(size, scheme=scheme, where=where, parts=False)
    found = driver.execute_script(
        """
        const box = e => e.getBoundingClientRect();
        const answer = document.getElementById("answer");
        const picture = [...answer.querySelectorAll("figure svg")].find(s => box(s).width > 0);
        const texts = [...picture.querySelectorAll("text")].map(t => ({
          text: t.textContent, left: box(t).left, right: box(t).right,
          size: box(t).height, fill: getComputedStyle(t).fill}));
        return {
          lead: answer.querySelector(".lead").textContent,
          bottom: box(answer).bottom, height: innerHeight, width: document.documentElement.scrollWidth,
          labels: [...answer.querySelectorAll("p > strong")].map(s => s.textContent),
          ends: [...answer.querySelectorAll("p")].map(p => box(p).bottom),
          picture: [box(picture).left, box(picture).right, box(picture).top, box(picture).bottom],
          texts: texts, paper: getComputedStyle(answer).backgroundColor,
          open: document.querySelectorAll("details[open]").length,
        };"""
    )
    assert found["lead"] == first
    assert found["labels"][:2] == ["How sure.", "What would settle it."]
    assert max(*found["ends"], found["bottom"]) <= size[1]
    assert found["width"] <= size[0]
    assert found["open"] == 0
    left, right, top, bottom = found["picture"]
    assert 0 <= left < right <= size[0]
    assert 60 < bottom - top < 220
    written = {t["text"] for t in found["texts"]}
    assert {"95% interval of the change"} <= written
    for text in found["texts"]:
        assert left - 1 <= text["left"] <= text["right"] <= right + 1
        assert text["size"] >= 10
        bright, dark = sorted((luminance(text["fill"]), luminance(found["paper"])), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) > 4.5


@pytest.mark.parametrize("size", [DESK, (768, 1024), PHONE])
def test_a_page_of_100_000_items_is_small_and_opens_at_once(visit, large, size):
    where, weight = large
    assert weight < 3_000_000
    driver = visit(size, where=where, parts=False)
    times = driver.execute_async_script(
        """
        const done = arguments[0];
        const read = () => {
          const loaded = performance.getEntriesByType("navigation")[0].loadEventEnd;
          const painted = performance.getEntriesByType("paint").map(e => e.startTime);
          if (loaded > 0 && painted.length) done([Math.max(...painted), loaded]);
          else setTimeout(read, 20);
        };
        read();"""
    )
    # In milliseconds; about 0.2 and 0.5 seconds on two cores that do much else.
    assert times[0] < 2_000
    assert times[1] < 5_000
    titles = driver.execute_script(
        "return [...document.querySelectorAll('.search > details > summary')].map(s => s.textContent)"
    )
    assert len(titles) == 2
    assert sum(int(re.search(r": (\d+),", title)[1]) for title in titles) > 40_000
    listed = driver.execute_script("return document.querySelectorAll('.search details details').length")
    assert listed >= 200


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Give the page of a log of 100,000 items under two arms, each with its texts, and its size."""
    import whyprompt as wp

    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(5)
    right = rng.random((100_000, 2)) < (0.5, 0.6)
    with (folder / "log.jsonl").open("w", encoding="utf-8") as log:
        for k, scores in enumerate(right.tolist()):
            question = f"Question {k}: " + "what do the words before these words mean? " * 5
            for arm, score in zip(("direct", "cot"), scores, strict=True):
                row = {
                    "item_id": f"q{k}",
                    "question": question,
                    "arm": arm,
                    "prompt": f"Answer as {arm}. {question}",
                    "completion": f"{arm} finds that {k} is " + "one of the many words " * 20,
                    "score": int(score),
                }
                log.write(json.dumps(row) + "\n")
    found = wp.read_trials(folder / "log.jsonl", texts=False)
    path = wp.write_report(found, wp.log_effect(found), target=folder / "page.html")
    return path.as_uri(), path.stat().st_size


def test_a_link_to_a_folded_part_opens_it(visit, pages):
    from selenium.webdriver.support.ui import WebDriverWait

    where, _ = pages["small"]
    opened = (
        "return [...document.querySelectorAll('.part')].filter(d => d.open).map(d => d.textContent.trim())"
    )
    driver = visit(where=f"{where}#limits", parts=False)
    (text,) = driver.execute_script(opened)
    assert text.startswith("What may not be claimed")
    at = "return document.querySelector('#limits').getBoundingClientRect().top"
    WebDriverWait(driver, 20).until(lambda d: 0 <= d.execute_script(at) < 900)
    driver = visit(where=where, parts=False)
    driver.execute_script("document.querySelector('nav a[href=\"#levels\"]').click()")
    found = WebDriverWait(driver, 20).until(lambda d: d.execute_script(opened))
    assert [text.split("\n")[0] for text in found] == ["The two levels joined"]
    button = "document.getElementById('all')"
    driver.execute_script(f"{button}.click()")
    assert driver.execute_script("return document.querySelectorAll('.part:not([open])').length") == 0


def test_items_that_changed_are_searched(visit, pages):
    driver = visit(where=pages["binary"][0])
    state = """
        const list = document.querySelector(".search");
        const box = list.querySelector("input");
        box.value = arguments[0];
        box.dispatchEvent(new Event("input"));
        const items = [...list.querySelectorAll(":scope > details > details")];
        return [items.filter(d => d.getBoundingClientRect().height > 0).map(
                  d => d.querySelector("summary").textContent), items.length,
                list.querySelector("output").textContent];"""
    shown, every, told = driver.execute_script(state, "says ARITHMETIC-")
    assert 0 < len(shown) < every
    assert all(text.startswith("arithmetic-") for text in shown)
    assert told == f"{len(shown)} of {every}"
    shown, _, told = driver.execute_script(state, "nothing like it")
    assert (shown, told) == ([], f"0 of {every}")
    shown, _, told = driver.execute_script(state, "")
    assert (len(shown), told) == (every, "")
    # Both arms stand beside each other where there is room, and below each other on a phone.
    tops = """
        const d = document.querySelector(".search > details > details"); d.open = true;
        return [...d.querySelectorAll(".side")].map(s => s.getBoundingClientRect().top);"""
    first, second = driver.execute_script(tops)
    assert first == second
    driver = visit(PHONE, where=pages["binary"][0])
    driver.execute_script("document.querySelectorAll('.search details').forEach(d => { d.open = true; })")
    first, second = driver.execute_script(tops)
    assert first < second


def test_no_legend_of_a_dark_page_is_black(visit):
    driver = visit(scheme="dark")
    driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    paper, marks = driver.execute_script(
        """
        const kinds = ".wide .role-legend-symbol path, .wide .mark-symbol path";
        const marks = [...document.querySelectorAll(kinds)];
        return [getComputedStyle(document.body).backgroundColor, marks.map(m => {
          const s = getComputedStyle(m);
          return [s.fill, s.stroke, s.fillOpacity, s.strokeOpacity, m.closest("figure").id];
        })];"""
    )
    assert len(marks) > 20
    for fill, stroke, _, _, figure in marks:
        colours = [c for c in (fill, stroke) if c not in {"none", "rgba(0, 0, 0, 0)"}]
        bright = max((luminance(c) for c in colours), default=1.0)
        assert (bright + 0.05) / (luminance(paper) + 0.05) > 2.5, (figure, fill, stroke)


def head(layer, number):
    return f'.wide [data-head][aria-label^="head {layer}.{number}:"]'


def shown(driver):
    """Give what the panel says: title, items in order with their text, and attention by segment."""
    return driver.execute_script(
        """
        const panel = document.getElementById("head-panel");
        const rows = [...panel.querySelectorAll("#head-items tbody tr")];
        return {
          title: panel.querySelector("h3").textContent,
          items: rows.map(r => [r.cells[0].textContent, r.querySelector(".v").textContent]),
          bars: rows.map(r => [parseFloat(r.querySelector(".bar span").style.left),
                               parseFloat(r.querySelector(".bar span").style.width)]),
          mass: [...panel.querySelectorAll(".mass")].map(t => Object.fromEntries(
            [...t.querySelectorAll("[data-seg]")].map(r => [r.dataset.seg, r.cells[1].textContent]))),
          mean: [...panel.querySelectorAll("#head-mass tbody tr")].map(
            r => [...r.cells].map(c => c.textContent)),
          shades: [...panel.querySelectorAll(".attention")].map(a =>
            [...a.querySelectorAll(".t")].map(t => parseFloat(t.style.getPropertyValue("--w")))),
        };"""
    )


def expected(small, layer, number):
    """Give the same from the results."""
    from whyprompt.charts.heads import head_words
    from whyprompt.page.blocks import num

    m = small.mediation
    at = m.main.sweep.heads.index((layer, number))
    effect = m.main.sweep.nie[:, at]
    order = np.argsort(-effect, kind="stable")
    mass, shades = [], []
    for p in m.attention:
        weight = p.mean_weights[at]
        names = [s or "other" for s in p.segments]
        total = {n: sum(w for w, k in zip(weight, names, strict=True) if k == n) for n in names}
        mass.append({n: f"{100 * v:.1f}%" for n, v in total.items()})
        shades.append(np.sqrt(weight / weight.max()))
    mean = [[name] for name in m.capture.segments]
    for k, row in enumerate(mean):
        for arm in (0, 1):
            part = m.capture.mass[:, arm, at, k]
            row.append("none" if np.isnan(part).all() else f"{100 * np.nanmean(part):.1f}%")
    return {
        "title": head_words(m.main.inference, at),
        "items": [[m.main.sweep.item_ids[i], num(float(effect[i])).text] for i in order],
        "mass": mass,
        "mean": mean,
        "shades": shades,
    }


def assert_shows(driver, small, layer, number):
    found, right = shown(driver), expected(small, layer, number)
    assert found["title"] == right["title"]
    assert found["items"] == right["items"]
    assert found["mass"] == right["mass"]
    assert found["mean"] == right["mean"]
    for a, b in zip(found["shades"], right["shades"], strict=True):
        np.testing.assert_allclose(a, b, atol=6e-4)
    most = np.abs(small.mediation.main.sweep.nie).max()
    for (left, width), (_, text) in zip(found["bars"], found["items"], strict=True):
        value = float(text.replace("−", "-"))
        assert width == pytest.approx(50 * abs(value) / most, abs=0.5)
        assert left == pytest.approx(50 if value >= 0 else 50 - width, abs=0.1)


def test_the_page_loads_with_the_network_cut_and_logs_no_error(visit, small):
    driver = visit()
    assert driver.title == small.study.question
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert driver.execute_script("return window.broken === undefined")
    assert_shows(driver, small, 1, 1)


def test_a_head_that_is_clicked_shows_its_items_and_attention(visit, small):
    from selenium.webdriver.common.by import By

    driver = visit()
    for layer, number in ((2, 2), (4, 0)):
        mark = driver.find_element(By.CSS_SELECTOR, head(layer, number))
        driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
        mark.click()
        assert_shows(driver, small, layer, number)
        pressed = driver.find_elements(By.CSS_SELECTOR, '.wide [aria-pressed="true"]')
        assert len(pressed) == 1
        assert pressed[0].get_attribute("aria-label").startswith(f"head {layer}.{number}:")
    assert driver.get_log("browser") == []


def test_heads_are_reached_and_chosen_by_the_keyboard(visit, small):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = visit()

    def press(*keys):
        ActionChains(driver).send_keys(*keys).perform()

    def focused():
        return driver.execute_script("return document.activeElement.getAttribute('aria-label') || ''")

    # The map is one stop for the tabulator, on the chosen head.
    for _ in range(60):
        press(Keys.TAB)
        if focused().startswith("head "):
            break
    assert focused().startswith("head 1.1:")
    press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert focused().startswith("head 2.2:")
    assert_shows(driver, small, 1, 1)
    press(Keys.ENTER)
    assert_shows(driver, small, 2, 2)
    assert focused().startswith("head 2.2:")
    press(Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_UP, " ")
    assert_shows(driver, small, 1, 0)
    press(Keys.TAB)
    assert driver.execute_script("return document.activeElement.id") == "head-select"
    outline = driver.execute_script(
        "const s = getComputedStyle(document.activeElement); return s.outlineStyle + ' ' + s.outlineWidth"
    )
    assert outline == "solid 3px"


def test_the_list_of_heads_chooses_too(visit, small):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    driver = visit(PHONE)
    box = Select(driver.find_element(By.ID, "head-select"))
    assert len(box.options) == len(small.mediation.main.sweep.heads)
    assert box.first_selected_option.text == "head 1.1"
    box.select_by_visible_text("head 3.2")
    assert_shows(driver, small, 3, 2)


def test_the_map_of_a_phone_is_turned_and_works(visit, small):
    from selenium.webdriver.common.by import By

    driver = visit(PHONE)
    assert not driver.find_element(By.CSS_SELECTOR, ".live .wide").is_displayed()
    mark = driver.find_element(By.CSS_SELECTOR, head(2, 2).replace(".wide", ".live .narrow"))
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
    assert mark.size["width"] >= 24
    mark.click()
    assert_shows(driver, small, 2, 2)


def test_words_of_a_mark_show_at_the_pointer(visit):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    driver = visit()
    mark = driver.find_element(By.CSS_SELECTOR, '#figure-forest .wide [data-say^="all items:"]')
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
    tip = driver.find_element(By.ID, "tip")
    patient = WebDriverWait(driver, 20)

    # The scroll's own event, which hides the words, may be delivered after the pointer came: like a
    # reader, the test moves the pointer again until the words are there.
    def words_at_the_pointer(_):
        ActionChains(driver).move_by_offset(1, 0).move_to_element(mark).perform()
        return tip.text == mark.get_attribute("data-say")

    def gone_at_escape(_):
        ActionChains(driver).send_keys("\ue00c").perform()
        return not tip.is_displayed()

    patient.until(words_at_the_pointer)
    patient.until(gone_at_escape)


def test_the_page_reads_without_scripts(visit, small):
    driver = visit(scripts=False)
    # A reader opens what is folded by a click, which needs no script.
    unfold = "document.querySelectorAll('.part').forEach(d => { d.open = true; })"
    driver.execute_cdp_cmd("Runtime.evaluate", {"expression": unfold})
    text = driver.execute_cdp_cmd(
        "Runtime.evaluate", {"expression": "document.body.innerText", "returnByValue": True}
    )["result"]["value"]
    flat = " ".join(text.split())
    assert headline(small.effect.main, arms=False) in flat
    assert " ".join(small.effect.sentence.split()) in flat
    assert " ".join(small.mediation.search.sentence.split()) in flat
    assert "Its effect, item by item" in flat
    assert "Head, the largest effect first" not in flat
    found = driver.execute_cdp_cmd(
        "Runtime.evaluate",
        {
            "expression": "JSON.stringify([document.documentElement.className, "
            "document.querySelectorAll('figure .wide svg').length, "
            "[...document.querySelectorAll('#head-items .v')].map(v => v.textContent)])",
            "returnByValue": True,
        },
    )["result"]["value"]
    scripted, pictures, effects = json.loads(found)
    assert scripted == ""
    assert pictures >= 10
    assert effects == [text for _, text in expected(small, 1, 1)["items"]]


@pytest.mark.parametrize("size", [PHONE, (320, 640), (768, 1024), DESK])
def test_the_page_never_scrolls_sideways(visit, size):
    driver = visit(size)
    driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    wide, window = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert window == size[0]
    assert wide <= window
    # Nothing sticks out, but for what scrolls in a box of its own.
    out = driver.execute_script(
        """
        return [...document.querySelectorAll("main *")].filter(e => {
          const r = e.getBoundingClientRect();
          if (!r.width || r.right <= innerWidth + 1) return false;
          for (let p = e.parentElement; p; p = p.parentElement)
            if (getComputedStyle(p).overflowX !== "visible") return false;
          return true;
        }).map(e => e.outerHTML.slice(0, 80));"""
    )
    assert out == []
    # Prompts, answers and commands are read without scrolling.
    cut = "[...document.querySelectorAll('pre')].filter(p => p.scrollWidth > p.clientWidth + 1)"
    assert driver.execute_script(f"return {cut}.length") == 0


def test_a_table_of_effects_is_seen_whole_on_a_phone(visit):
    driver = visit(PHONE)
    wide, window = driver.execute_script(
        """
        const box = document.querySelector("[data-table=effects]").closest(".scroll");
        return [box.scrollWidth, box.clientWidth];"""
    )
    assert 0 < wide <= window


def luminance(colour):
    r, g, b = (int(c) / 255 for c in re.findall(r"\d+", colour)[:3])
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in ((0.2126, r), (0.7152, g), (0.0722, b))
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_follow_the_colour_scheme(visit, scheme):
    driver = visit(scheme=scheme)
    paper, ink, label, grid = driver.execute_script(
        """
        const style = (q, p) => getComputedStyle(document.querySelector(q))[p];
        return [style("body", "backgroundColor"), style("body", "color"),
                style("#figure-forest .wide text", "fill"),
                style("#figure-forest .wide .role-axis-grid line", "stroke")];"""
    )
    assert (luminance(paper) > 0.5) == (scheme == "light")
    assert label == ink
    bright, dark = sorted((luminance(paper), luminance(ink)), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) > 7
    assert grid != ink


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_deepest_token_can_still_be_read(visit, scheme):
    driver = visit(scheme=scheme)
    ink, shade, panel = driver.execute_script(
        """
        const token = [...document.querySelectorAll(".t")].find(
          t => t.style.getPropertyValue("--w") === "1.000");
        const s = getComputedStyle(token);
        return [s.color, s.backgroundColor, getComputedStyle(document.getElementById("head-panel"))
          .backgroundColor];"""
    )
    *colour, opacity = map(float, re.findall(r"[\d.]+", shade + ("" if "rgba" in shade else " 1")))
    below = [float(c) for c in re.findall(r"\d+", panel)[:3]]
    mixed = [round(opacity * c + (1 - opacity) * b) for c, b in zip(colour, below, strict=True)]
    bright, dark = sorted((luminance(ink), luminance(str(mixed))), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) > 4.5


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light")])
def test_axe_finds_nothing_serious(visit, size, scheme):
    from importlib.resources import files

    pytest.importorskip("axe_core_python", reason="axe is not installed: pip install 'whyprompt[dev]'")
    driver = visit(size, scheme=scheme)
    driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    driver.execute_script((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    result = driver.execute_async_script("axe.run(document).then(arguments[arguments.length - 1])")
    assert len(result["passes"]) > 20
    found = [
        (v["id"], v["impact"], [n["html"][:120] for n in v["nodes"][:3]])
        for v in result["violations"]
        if v["impact"] in {"serious", "critical"}
    ]
    assert found == []


def test_on_paper_everything_is_open_and_nothing_is_left_out(visit):
    driver = visit((794, 1123), media="print", parts=False)
    # Without a script too: what is folded is laid out on paper.
    assert driver.execute_script("return document.querySelectorAll('details[open]').length") == 0
    assert (
        driver.execute_script("return document.querySelector('#limits').getBoundingClientRect().height") > 100
    )
    driver.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    hidden, closed, clipped, wide = driver.execute_script(
        """
        const gone = q => getComputedStyle(document.querySelector(q)).display === "none";
        return [gone("nav") && gone(".choose") && gone(".all") && !gone(".answer"),
                document.querySelectorAll("details:not([open])").length,
                [...document.querySelectorAll(".tokens, .tall")].filter(
                  e => e.scrollHeight > e.clientHeight + 1).length,
                document.documentElement.scrollWidth];"""
    )
    assert hidden
    assert closed == 0
    assert clipped == 0
    assert wide <= 794
    driver.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert driver.execute_script("return document.querySelectorAll('details[open]').length") == 0


# --------------------------------------------------------------------------------------- the page of logs
@pytest.fixture(scope="module")
def logs_url(tmp_path_factory):
    import whyprompt as wp

    folder = tmp_path_factory.mktemp("logs")
    hostile = "<script>window.broken = true</script> https://example.org/x " + "a" * 300
    rows = [
        {
            "item_id": f"q{k}",
            "question": f"What is {k} + 1? {hostile}",
            "arm": arm,
            "completion": f"{hostile} step by step " * 60,
            "score": int((k * 7 + place * 3) % 5 > 1),
        }
        for k in range(20)
        for place, arm in enumerate(("direct", "cot"))
    ]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = wp.read_trials(folder / "log.jsonl")
    return wp.write_report(found, wp.log_effect(found), target=folder / "page.html").as_uri()


@pytest.mark.parametrize("size", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_logs_fits_its_window_and_runs_nothing_of_a_log(browser, logs_url, size, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.get_log("browser")
    browser.get(logs_url)
    closed = browser.execute_script("return document.querySelectorAll('details:not([open])').length")
    assert closed > 10
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    width = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1] + 1
    assert browser.execute_script("return window.broken === undefined")
    assert browser.execute_script("return document.querySelectorAll('#answer a, .parts a').length") == 0
    assert browser.get_log("browser") == []
