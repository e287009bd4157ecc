"""The leaderboard's page in a real browser."""

import math
import re
import time

import numpy as np
import pytest
from PIL import Image

from hvc.evaluation.leaderboard.board import Entry, Measured, Picture, Unscored, board_of
from hvc.evaluation.leaderboard.page import page, thinned

EVIL = '<script>window.caught = "name"</script>\'"><img src=x onerror="window.caught=1">'
NAMES = ("video-00", "video-01", "</script><b>bold</b>")


def entry(name, score, kind="run", **more):
    report = {
        "per_sequence": {
            video: {"f_recall": 7.0, "j_mean": 3.0, "jf_mean": score + place}
            for place, video in enumerate(NAMES)
        },
        "per_object": {f"{video}/{k}": {"j_mean": 50.0 + k} for video in NAMES for k in (1, 2)},
        "curves": {video: {"j": [50.0, 60.0], "f": [40.0, math.nan], "j/1": [1.0, 2.0]} for video in NAMES},
    }
    values = {"step": 100, "last_step": 100, "last": score, "run_id": f"{name:>8.8}", "report": report}
    return Entry(kind, name, {"jf_mean": score, "j_mean": 100 - score}, **(values | more))


def measured(one, benchmark="davis2017", preset="hvc", digest="d" * 64, sequences=30, protocol=None):
    return Measured(one, benchmark, preset, digest, "jf_mean", sequences, protocol or {"context": 50})


def strip(picture):
    """A picture as MLflow would give it."""
    if "gone" in picture.path:
        return None
    noise = np.random.default_rng(0).integers(0, 255, (90, 400, 3), np.uint8)
    from io import BytesIO

    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = tuple(Picture("r", "", f"p/{name}.png", f"{name}.png") for name in ("overview", "video-00"))


def board():
    stepped = {
        "steps": 3,
        "history": ((100, 50.0), (200, 60.0), (300, 55.0)),
        "last_step": 300,
        "last": 55.0,
    }
    return board_of(
        [
            measured(entry("low", 9.5, pictures=PICTURES)),
            measured(entry("high", 72.5, **stepped)),
            measured(entry("nan", math.nan)),
            measured(entry("baseline:untrained", 21.0, "baseline")),
            measured(entry(EVIL, 40.0, checkpoint=EVIL, remark=EVIL, experiment=EVIL)),
            measured(entry("elsewhere", 80.0), preset="custom-ab12cd", protocol={"context": EVIL}),
            measured(entry("sixteen", 80.0), "davis2016", sequences=4),
        ],
        [Unscored(EVIL, "12345678", EVIL, "failed", 0.0)],
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "board.html"
    path.write_text(page(board(), EVIL, strip, 0.0), encoding="utf-8")
    return path


@pytest.fixture
def driver(browser, file):
    yield browser.open(file)
    assert browser.complaints() == []
    assert browser.requests() == [file.as_uri()]


def css(driver, selector):
    from selenium.webdriver.common.by import By

    return driver.find_elements(By.CSS_SELECTOR, selector)


def rows(driver, group):
    """Names of a group's rows that are to be seen, from top to bottom."""
    cells = css(driver, f"section.group:nth-of-type({group}) tr.entry .name")
    return [cell.text.split(" ")[0] for cell in cells if cell.is_displayed()]


def runs_of_davis2017(driver):
    return [name for name in rows(driver, 3) if name in ("low", "high", "nan", "baseline:untrained")]


def heading(driver, word, group=3):
    found = css(driver, f"section.group:nth-of-type({group}) > .wide > table > thead th")
    return next(one for one in found if one.text.strip() == word)


def button_of(driver, name):
    return next(
        one for one in css(driver, ".open") if one.get_attribute("aria-label") == f"details of {name}"
    )


@pytest.mark.services
def test_columns_sort_by_click_and_by_keyboard_and_what_has_no_value_stays_last(driver):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    assert runs_of_davis2017(driver) == ["high", "baseline:untrained", "low", "nan"]
    score = heading(driver, "J&F")
    assert score.get_attribute("aria-sort") == "descending"
    score.find_element(By.TAG_NAME, "button").click()
    assert score.get_attribute("aria-sort") == "ascending"
    assert runs_of_davis2017(driver) == ["low", "baseline:untrained", "high", "nan"]
    name = heading(driver, "name")
    name.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert (name.get_attribute("aria-sort"), score.get_attribute("aria-sort")) == ("ascending", None)
    assert runs_of_davis2017(driver) == ["baseline:untrained", "high", "low", "nan"]
    name.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert runs_of_davis2017(driver) == ["nan", "low", "high", "baseline:untrained"]


@pytest.mark.services
def test_rows_are_filtered_by_benchmark_protocol_kind_and_words(driver):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    def shown():
        found = [cell.text.split(" ")[0] for cell in css(driver, "tr.entry .name") if cell.is_displayed()]
        assert driver.find_element(By.ID, "said").text.startswith(f"{len(found)} row")
        return found

    everything = shown()
    assert {"low", "sixteen", "elsewhere", "CRW"} <= set(everything)
    published = next(
        box for box in css(driver, "input[name=kind]") if box.get_attribute("value") == "published"
    )
    published.click()
    assert "CRW" not in shown()
    Select(css(driver, "select[name=benchmark]")[0]).select_by_value("davis2017")
    assert {"low", "elsewhere"} <= set(shown())
    assert "sixteen" not in shown()
    Select(css(driver, "select[name=preset]")[0]).select_by_value("custom-ab12cd")
    assert shown() == ["elsewhere"]
    Select(css(driver, "select[name=preset]")[0]).select_by_value("")
    css(driver, "input[name=words]")[0].send_keys("UNTRAINED base")
    assert shown() == ["baseline:untrained"]
    assert [one.text for one in css(driver, "section.group h2") if one.is_displayed()] == [
        "davis2017 · protocol hvc · data dddddddd · 30 sequences"
    ]


@pytest.mark.services
def test_a_row_opens_by_keyboard_and_its_details_go_with_it(driver):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    button = button_of(driver, "low")
    details = driver.find_element(By.ID, button.get_attribute("aria-controls"))
    assert not details.is_displayed()
    button.send_keys(Keys.ENTER)
    assert details.is_displayed()
    assert button.get_attribute("aria-expanded") == "true"
    table = [
        [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "td")]
        for row in css(driver, ".details tr")
    ]
    assert [line[:4] for line in table if line and line[0] in NAMES] == [
        ["video-00", "9.5", "3.0", "7.0"],
        ["video-01", "10.5", "3.0", "7.0"],
        ["</script><b>bold</b>", "11.5", "3.0", "7.0"],
    ]
    assert "1: 51.0, 2: 52.0" in details.text
    assert len(details.find_elements(By.CSS_SELECTOR, "polyline")) == 2 * len(NAMES)
    images = details.find_elements(By.TAG_NAME, "img")
    assert [image.get_attribute("alt").split(":")[0] for image in images] == [
        "all sequences, worst first",
        "video-00",
    ]
    assert all(image.get_property("naturalWidth") == 400 for image in images)
    heading(driver, "J&F").find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    before = driver.execute_script("return arguments[0].previousElementSibling.textContent", details)
    assert "low" in before
    css(driver, "input[name=words]")[0].send_keys("high")
    assert not details.is_displayed()
    css(driver, "input[name=words]")[0].clear()
    css(driver, "input[name=words]")[0].send_keys("low")
    assert details.is_displayed()
    button.send_keys(Keys.SPACE)
    assert not details.is_displayed()


@pytest.mark.services
def test_a_run_of_several_steps_shows_how_they_went(driver):
    button = button_of(driver, "high")
    button.click()
    text = css(driver, f"#{button.get_attribute('aria-controls')}")[0].text
    assert "100, the best of 3 evaluated" in text
    assert "steps 100 to 300, 50.0 to 60.0 percent" in text


@pytest.mark.services
def test_what_users_write_is_text_and_nothing_else(driver):
    for button in css(driver, ".open"):
        button.click()
    assert driver.execute_script("return window.caught") is None
    assert len(css(driver, "script")) == 2
    assert css(driver, "b, img[src=x]") == []
    body = driver.find_element("tag name", "body").text
    assert body.count('<script>window.caught = "name"</script>') >= 6


@pytest.mark.services
def test_dark_and_light_have_enough_contrast(driver):
    script = """
        const style = (element) => getComputedStyle(element);
        const [paper, soft, ink] = [style(document.body).backgroundColor,
            style(document.querySelector('.soft')).color, style(document.body).color];
        return [paper, soft, ink];
    """

    def light(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    papers = []
    for _ in range(2):
        paper, *inks = (light(colour) for colour in driver.execute_script(script))
        papers.append(paper)
        for ink in inks:
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5
        css(driver, ".theme")[0].click()
    assert min(papers) < 0.1 < 0.9 < max(papers)


@pytest.mark.services
def test_paper_gets_tables_and_opened_rows_without_controls(driver):
    button_of(driver, "low").click()
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not css(driver, "form")[0].is_displayed()
        assert not css(driver, ".open")[0].is_displayed()
        assert css(driver, "tr.entry")[0].is_displayed()
        assert [one.is_displayed() for one in css(driver, "tr.details")].count(True) == 1
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.services
def test_a_thousand_runs_open_and_filter_quickly(browser, tmp_path):
    many = [measured(entry(f"run-{number}", number / 12)) for number in range(1000)]
    start = time.perf_counter()
    (tmp_path / "many.html").write_text(page(board_of(many, []), "here", strip, 0.0))
    assert time.perf_counter() - start < 10
    driver = browser.open(tmp_path / "many.html")
    took = driver.execute_script("""
        const start = performance.now();
        document.querySelector('input[name=words]').value = 'run-99';
        document.querySelector('form').dispatchEvent(new Event('input'));
        document.querySelector('th.n:nth-child(4) button').click();
        return performance.now() - start;
    """)
    assert took < 3000
    assert len([1 for row in css(driver, "tr.entry:not([hidden])")]) == 11


def test_every_row_has_a_cell_for_every_heading():
    text = page(board(), "", strip, 0.0)
    tables = re.findall(r"<table>.*?</table>", text, re.DOTALL)
    assert any("published" in table and "<th" in table and ">step<" not in table for table in tables)
    for table in tables:
        headings = len(re.findall(r"<th ", table))
        for row in re.findall(r'<tr class="entry".*?</tr>', table, re.DOTALL):
            assert len(re.findall(r"<td", row)) == headings, row


def test_pictures_that_are_gone_or_too_many_are_left_out_and_said():
    gone = tuple(Picture("r", "", f"gone/{name}.png", f"{name}.png") for name in ("overview", "video-00"))
    text = page(board_of([measured(entry("a", 50.0, pictures=gone))], []), "here", strip, 0.0)
    assert "data:image" not in text
    assert "are at MLflow" in text

    many = [measured(entry(f"run-{n}", 50.0, pictures=PICTURES), digest=f"{n:064}") for n in range(40)]
    full = page(board_of(many, []), "here", strip, 0.0, most_bytes=500_000)
    assert 450_000 < sum(map(len, re.findall(r"data:image[^\"]+", full))) <= 500_000


def test_a_long_curve_becomes_means_of_neighbours():
    assert thinned([1.0, 2.0], 60) == [1.0, 2.0]
    assert thinned([0.0, 10.0] * 60, 60) == [5.0] * 60
    assert thinned([]) == []
