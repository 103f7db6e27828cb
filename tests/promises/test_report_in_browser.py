"""Pages of reports in a real browser: nothing in the console, nothing fetched, switches and sorting by keyboard.

It needs Chromium with its driver (Debian's `chromium` and `chromium-driver`), Selenium's client and the extra `report`.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.screen import visible
from tests.support.hostile_runs import NAMES, hostile_run

ROOT = Path(__file__).parents[2]
RELEASED, PROBLEMS = ROOT / "results/baselines/released", ROOT / "results/baselines/released-che"
SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium's client is not installed")
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(found):
        pytest.skip("there is no Chromium with its driver; Debian has both in chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.binary_location = found[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")
    home = tmp_path_factory.mktemp("pages")
    hostile = hostile_run(RELEASED, home / "<img src=x>run", ("alibi", "rope", "nope", "t5"))
    asked = {
        "text": [RELEASED, "--baseline", "released"],
        "problems": [PROBLEMS],
        "hostile": [hostile, "--baseline", RELEASED],
    }
    for name, arguments in asked.items():
        done = CliRunner().invoke(app, ["report", *map(str, arguments), "--out", str(home / f"{name}.html")])
        assert done.exit_code == 0, done.output
    return {name: home / f"{name}.html" for name in asked}


def opened(browser: Any, page: Path, size: str = "desktop", scheme: str = "light") -> list[str]:
    """Shows a page; what the console says, and what is fetched beside it."""
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size != "desktop"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [feature]})
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    drawn(browser)
    events = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    return [each["message"] for each in browser.get_log("browser")] + [url for url in urls if url != page.as_uri()]


def drawn(browser: Any, at_least: int = 1) -> None:
    script = "return [...document.querySelectorAll('figure.chart')].every(f => Number(f.dataset.drawn) >= arguments[0])"
    end = time.monotonic() + 60
    while not browser.execute_script(script, at_least):
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.05)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_says_nothing_fetches_nothing_and_fits(browser, pages, size: str, scheme: str):
    for page in pages.values():
        assert opened(browser, page, size, scheme) == []
        width, inside = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width <= inside == SIZES[size][0]
        background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_names_are_shown_and_nothing_in_them_runs(browser, pages):
    assert opened(browser, pages["hostile"]) == []
    assert browser.execute_script("return window.pwned ?? null") is None
    assert browser.execute_script("return document.querySelectorAll('img, iframe, script[src]').length") == 0
    labels = browser.execute_script("return [...document.querySelectorAll('label.line span')].map(e => e.textContent)")
    assert sorted(labels) == sorted(visible(name) for name in NAMES)


def marks(browser: Any) -> set[str]:
    """The models whose points are drawn in the first chart."""
    script = (
        "return [...document.querySelector('figure.chart').querySelectorAll('g.mark-symbol path[aria-label]')]"
        ".map(e => /model: ([^;]+)/.exec(e.getAttribute('aria-label'))?.[1]).filter(Boolean)"
    )
    return set(browser.execute_script(script))


def test_a_line_is_switched_off_and_on_and_the_axis_follows(browser, pages):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, pages["text"])
    chart = browser.find_element(By.CSS_SELECTOR, "figure.chart")
    assert {"alibi", "rope"} <= marks(browser)
    # By keyboard: the space bar on the box.
    chart.find_element(By.CSS_SELECTOR, "input[name=line][value='0']").send_keys(Keys.SPACE)
    drawn(browser, 2)
    assert "alibi" not in marks(browser) and "rope" in marks(browser)
    chart.find_element(By.CSS_SELECTOR, "[data-all='']").send_keys(Keys.ENTER)
    drawn(browser, 3)
    assert marks(browser) == set()
    chart.find_element(By.CSS_SELECTOR, "[data-all='1']").send_keys(Keys.ENTER)
    drawn(browser, 4)
    assert {"alibi", "rope"} <= marks(browser)
    for number, (name, value, label) in enumerate(
        [("view", "2", "change of the loss"), ("view", "1", "loss (nats"), ("scale", "linear", "loss (nats")], 5
    ):
        chart.find_element(By.CSS_SELECTOR, f"input[name={name}][value='{value}']").click()
        drawn(browser, number)
        assert label in chart.find_element(By.CSS_SELECTOR, ".plot svg").text
    assert browser.get_log("browser") == []


def test_a_point_tells_its_stored_value_when_it_is_pointed_at(browser, pages):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    opened(browser, pages["text"])
    browser.execute_script("document.querySelector('figure.chart').scrollIntoView()")
    # The last one, at the longest length, which stands alone.
    shown = browser.find_elements(By.CSS_SELECTOR, "figure.chart g.mark-symbol path[aria-label*='model: sinusoidal;']")
    ActionChains(browser).move_to_element(shown[-1]).perform()
    end = time.monotonic() + 30
    while not (tips := browser.find_elements(By.CSS_SELECTOR, "#vg-tooltip-element.visible")):
        assert time.monotonic() < end
        time.sleep(0.05)
    tip = tips[0]
    stored = [line.split(",") for line in (RELEASED / "rows.csv").read_text().splitlines() if ",sinusoidal," in line]
    assert "sinusoidal" in tip.text and any(f"stored {value}" in tip.text for line in stored for value in line)


def test_a_table_is_sorted_by_the_stored_numbers_by_keyboard(browser, pages):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, pages["text"])
    table = browser.find_element(By.CSS_SELECTOR, "table.sortable")
    heads = table.find_elements(By.CSS_SELECTOR, "thead tr:last-child th")
    place = next(number for number, head in enumerate(heads) if head.text.startswith("2048"))
    script = "return [...arguments[0].tBodies[0].rows].map(r => r.cells[arguments[1]].dataset.value ?? 'none')"
    for order in (1, -1):
        heads[place].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        values = browser.execute_script(script, table, place)
        numbers = [float(value) for value in values if value != "none"]
        assert numbers == sorted(numbers, reverse=order < 0) and values[-1] == "none"
    assert heads[place].get_attribute("aria-sort") == "descending"


def test_what_is_folded_is_printed_and_folded_again(browser, pages):
    opened(browser, pages["text"])
    count = "return document.querySelectorAll('details:not([open])').length"
    before = browser.execute_script(count)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert before > 0 == browser.execute_script(count)
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(count) == before
