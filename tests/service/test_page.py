"""The page in a real browser: files, a recorded cough, faults, keyboard, phone, accessibility."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from pulmofuse.inference import Predictor
from pulmofuse.service import ServiceSettings, Trail, create_app, explain_answer, open_database
from tests.service import material

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium and chromedriver on PATH (Debian: apt install chromium chromium-driver)",
)
WAIT_S = 30


@dataclass(frozen=True)
class Site:
    """A running service."""

    url: str
    key: str
    trail: Trail

    @property
    def with_key(self) -> str:
        return f"{self.url}/#key={self.key}"


@pytest.fixture(scope="module")
def site(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    trail = Trail(open_database(str(tmp_path_factory.mktemp("page") / "trail.sqlite")))
    settings = ServiceSettings(workers=2, torch_threads=1)
    app = create_app(predictor, "f" * 64, trail, settings, explain_answer)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Site(f"http://127.0.0.1:{port}", trail.add_key("browser"), trail)
    server.should_exit = True
    thread.join()
    trail.close()


@pytest.fixture(scope="module")
def coughs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the false microphone hears."""
    path = tmp_path_factory.mktemp("microphone") / "cough.wav"
    path.write_bytes(material.cough())
    return path


@pytest.fixture(scope="module")
def browser(coughs: Path) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={coughs}",
        "--window-size=1280,1000",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


class Page:
    """The page as a person uses it."""

    def __init__(self, driver: Any, site: Site) -> None:
        self.driver, self.site = driver, site

    def open(self, url: str) -> None:
        self.driver.get("about:blank")
        self.driver.get(url)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def until(self, holds: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, WAIT_S, poll_frequency=0.05).until(lambda _: holds())

    def shown(self, selector: str) -> None:
        self.until(lambda: self.find(selector).is_displayed())

    def give(self, modality: str, path: Path) -> None:
        self.find(f"#file-{modality}").send_keys(str(path))

    def ask(self) -> None:
        self.find("#go").click()
        self.shown("#answer")
        self.until(lambda: not self.text("#busy"))

    def faults(self) -> list[dict[str, Any]]:
        """Serious and critical faults that axe finds."""
        source = resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
        self.driver.execute_script(source)
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then((r) => done(r.violations));"
        )
        return [v for v in found if v["impact"] in {"serious", "critical"}]

    def complaints(self) -> list[str]:
        """What the browser's console says, refused requests apart."""
        entries = self.driver.get_log("browser")
        return [e["message"] for e in entries if "status of 4" not in e["message"]]


@pytest.fixture
def page(browser: Any, site: Site) -> Page:
    browser.set_window_size(1280, 1000)
    browser.get_log("browser")
    made = Page(browser, site)
    made.open(site.with_key)
    made.shown("#ask")
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    content = {"ct.png": material.ct(), "cxr.png": material.cxr(), "cough.wav": material.cough()}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return {name.partition(".")[0]: folder / name for name in content}


def test_files_of_all_modalities_are_answered_and_explained(
    page: Page, files: dict[str, Path]
) -> None:
    assert not page.find("#go").is_enabled()
    for modality, path in files.items():
        page.give(modality, path)
    page.ask()
    assert "CT + Chest X-ray + Cough" in page.text("#headline")
    rows = page.driver.find_elements("css selector", "#probabilities tbody tr")
    assert len(rows) == 4
    assert len(page.driver.find_elements("css selector", "#contributions li")) == 3
    assert "the channel tells the class" in page.text("#warnings")
    assert len(page.driver.find_elements("css selector", "#maps figure")) == 3
    assert page.complaints() == []


def test_leaving_a_modality_out_asks_again_without_it(page: Page, files: dict[str, Path]) -> None:
    page.give("ct", files["ct"])
    page.give("cxr", files["cxr"])
    page.ask()
    page.find("#out-ct").click()
    page.until(lambda: "Left out: CT" in page.text("#headline"))
    assert "from Chest X-ray." in page.text("#headline")
    page.find("#out-ct").click()
    page.until(lambda: "CT + Chest X-ray" in page.text("#headline"))


@pytest.mark.parametrize("recorder", ["MediaRecorder", "Web Audio"])
def test_a_cough_is_recorded_and_answered(page: Page, recorder: str) -> None:
    if recorder == "Web Audio":
        page.driver.execute_script("window.MediaRecorder = undefined;")
    button = page.find("fieldset.slot button:not(.tools button)")
    button.click()
    page.until(lambda: button.text == "Stop recording")
    page.until(lambda: "2 of" in page.text("fieldset.slot .hint[role=status]"))
    button.click()
    suffix = "webm" if recorder == "MediaRecorder" else "wav"
    page.until(lambda: f"recorded-cough.{suffix}" in page.text("#slots"))
    page.ask()
    assert "from Cough" in page.text("#headline")
    assert page.complaints() == []


def test_a_refused_file_is_explained_with_a_remedy(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_bytes(b"these are notes, not pixels")
    page.give("cxr", path)
    page.find("#go").click()
    page.until(lambda: page.text("#fault"))
    assert page.text("#fault").startswith("Chest X-ray:")
    assert "What to do:" in page.text("#fault")
    assert not page.find("#answer").is_displayed()
    assert page.driver.switch_to.active_element.get_attribute("id") == "fault"


def test_the_slider_fades_the_map(page: Page, files: dict[str, Path]) -> None:
    from selenium.webdriver import Keys

    page.give("cxr", files["cxr"])
    page.ask()
    slider = page.find("#map-cxr")
    slider.send_keys(Keys.HOME)
    above = page.find("#maps .stack img + img")
    assert float(above.value_of_css_property("opacity")) == 0.0
    slider.send_keys(Keys.END)
    assert float(above.value_of_css_property("opacity")) == 1.0


def test_the_key_does_not_stay_in_the_address_and_a_wrong_one_is_refused(
    page: Page, site: Site
) -> None:
    assert site.key not in page.driver.current_url
    page.driver.execute_script("sessionStorage.clear()")
    page.open(f"{site.url}/#key=wrong")
    page.shown("#key-panel")
    page.until(lambda: "does not know this key" in page.text("#key-fault"))
    page.find("#key").send_keys(site.key + "\n")
    page.shown("#ask")


def test_research_use_only_is_seen_wherever_one_scrolls(page: Page, files: dict[str, Path]) -> None:
    page.give("ct", files["ct"])
    page.ask()
    page.driver.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    box = page.driver.execute_script(
        "const r = document.querySelector('.research').getBoundingClientRect();"
        "return [r.top, r.bottom, innerHeight];"
    )
    assert 0 <= box[0] < box[1] <= box[2]
    assert "Research use only" in page.text(".research")


@pytest.mark.parametrize("width", [1280, 390])
def test_no_serious_fault_of_accessibility_and_no_sideways_scrolling(
    page: Page, files: dict[str, Path], width: int
) -> None:
    # The window of a headless browser has a least width, a device has none.
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    try:
        for modality, path in files.items():
            page.give(modality, path)
        page.ask()
        assert page.faults() == []
        wide = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_works_by_keyboard_alone(page: Page, files: dict[str, Path]) -> None:
    from selenium.webdriver import ActionChains, Keys

    page.give("cxr", files["cxr"])
    page.driver.execute_script("document.activeElement.blur()")
    keyboard, seen = ActionChains(page.driver), []
    while "go" not in seen and len(seen) < 40:
        keyboard.send_keys(Keys.TAB).perform()
        seen.append(page.driver.switch_to.active_element.get_attribute("id"))
    assert seen[-1] == "go", seen
    keyboard.send_keys(Keys.ENTER).perform()
    page.shown("#answer")
    page.until(lambda: page.driver.switch_to.active_element.get_attribute("id") == "answer-title")


def test_a_dropped_file_is_taken(page: Page, files: dict[str, Path]) -> None:
    import base64

    data = base64.b64encode(files["cxr"].read_bytes()).decode()
    page.driver.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        const slot = document.querySelector("#file-cxr").closest("fieldset");
        slot.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
        """,
        data,
    )
    page.until(lambda: "dropped.png" in page.text("#slots"))
    page.ask()
    assert "from Chest X-ray." in page.text("#headline")


def test_what_a_file_is_called_is_text_and_never_markup(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=document.title='taken'>.png"
    path.write_bytes(material.cxr(3))
    page.give("cxr", path)
    page.ask()
    assert page.driver.title == "Pulmofuse: research use only"
    assert "<img src=x" in page.text("#slots")


def test_answers_of_the_page_stand_in_the_audit_trail(
    page: Page, site: Site, files: dict[str, Path]
) -> None:
    page.give("ct", files["ct"])
    page.ask()
    identity = page.text("#stamp").split()[1].rstrip(",")
    assert np.all([letter in "0123456789abcdef" for letter in identity])
    key_id = site.trail.authenticate(site.key)
    assert key_id is not None
    assert site.trail.prediction(key_id, identity) is not None


#: Answers of the service wait in `held` until a test lets them go.
HOLD = """
window.held = [];
const real = window.fetch;
window.fetch = async (...asked) => {
  const answer = await real(...asked);
  await new Promise((go) => window.held.push(go));
  return answer;
};
"""


class TestTheAnswerBelongsToWhatIsGiven:
    """No probabilities of one patient beside the file of another, on paper neither."""

    def hold(self, page: Page, n: int) -> None:
        page.until(lambda: page.driver.execute_script("return held.length") == n)

    def release(self, page: Page, which: int) -> None:
        # What follows an answer in the page is over when the macrotask after it runs.
        page.driver.execute_async_script(
            "held[arguments[0]](); setTimeout(arguments[1], 100);", which
        )

    @pytest.mark.parametrize("how", ["replaced", "removed"])
    def test_another_file_takes_it_away(
        self, page: Page, files: dict[str, Path], tmp_path: Path, how: str
    ) -> None:
        page.give("cxr", files["cxr"])
        page.ask()
        if how == "replaced":
            other = tmp_path / "other.png"
            other.write_bytes(material.cxr(7))
            page.give("cxr", other)
        else:
            page.driver.execute_script("document.querySelector('.full .tools button').click()")
        page.until(lambda: not page.find("#answer").is_displayed())

    def test_an_answer_for_a_file_that_is_gone_is_dropped(
        self, page: Page, files: dict[str, Path]
    ) -> None:
        page.driver.execute_script(HOLD)
        page.give("cxr", files["cxr"])
        page.find("#go").click()
        self.hold(page, 1)
        page.give("cxr", files["ct"])
        self.release(page, 0)
        assert not page.find("#answer").is_displayed()
        assert page.find("#go").is_enabled()
        assert page.text("#busy") == ""

    def test_an_older_answer_does_not_replace_a_newer_one(
        self, page: Page, files: dict[str, Path]
    ) -> None:
        page.driver.execute_script(HOLD)
        page.give("ct", files["ct"])
        page.give("cxr", files["cxr"])
        page.find("#go").click()
        self.hold(page, 1)
        page.find("#out-ct").click()
        self.hold(page, 2)
        self.release(page, 1)
        newest = "from Chest X-ray. Left out: CT."
        page.until(lambda: newest in page.text("#headline"))
        self.release(page, 0)
        assert newest in page.text("#headline")

    def test_leaving_out_all_there_is_takes_it_away(
        self, page: Page, files: dict[str, Path]
    ) -> None:
        page.give("cxr", files["cxr"])
        page.ask()
        page.find("#out-cxr").click()
        page.until(lambda: not page.find("#answer").is_displayed())
        assert not page.find("#go").is_enabled()


def test_a_question_whose_answer_was_lost_is_recorded_once(
    page: Page, files: dict[str, Path]
) -> None:
    page.driver.execute_script(
        """
        window.ids = [];
        const real = window.fetch;
        window.fetch = async (...asked) => {
          const answer = await real(...asked);
          ids.push((await answer.clone().json()).id);
          if (ids.length === 1) throw new TypeError("the connection was lost");
          return answer;
        };
        """
    )
    page.give("cxr", files["cxr"])
    page.find("#go").click()
    page.until(lambda: "cannot be reached" in page.text("#fault"))
    page.ask()
    page.find("#go").click()  # another question, as it was answered
    page.until(lambda: page.driver.execute_script("return ids.length") == 3)
    first, again, other = page.driver.execute_script("return ids")
    assert first == again != other


def test_a_file_that_was_changed_since_is_to_be_chosen_again(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "chest.png"
    path.write_bytes(material.cxr(1))
    page.give("cxr", path)
    path.write_bytes(material.cxr(2) + b"more")
    os.utime(path, (1, 1))
    page.find("#go").click()
    page.until(lambda: "Choose it again." in page.text("#fault"))
    assert page.text("#fault").startswith("Chest X-ray: chest.png cannot be read")


@pytest.mark.parametrize("body", ["<html>a proxy</html>", "{}"])
def test_an_answer_that_is_none_is_told(page: Page, files: dict[str, Path], body: str) -> None:
    page.driver.execute_script("window.fetch = async () => new Response(arguments[0]);", body)
    page.give("cxr", files["cxr"])
    page.find("#go").click()
    page.until(lambda: "What to do:" in page.text("#fault"))
    assert not page.find("#answer").is_displayed()
    assert page.find("#go").is_enabled()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("AudioContext.prototype.resume = () => Promise.reject(new Error());", "was not given"),
        ("MediaRecorder.prototype.start = () => { throw new Error(); };", "was not given"),
        ("MediaRecorder.prototype.stop = () => { throw new Error(); };", "recording failed"),
    ],
)
def test_a_recording_that_fails_leaves_no_microphone_open(
    page: Page, broken: str, words: str
) -> None:
    page.driver.execute_script(
        """
        const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (what) => (window.stream = await real(what));
        """
        + broken
    )
    button = page.find("fieldset.slot button:not(.tools button)")
    button.click()
    if words == "recording failed":
        page.until(lambda: button.text == "Stop recording")
        button.click()
    page.until(lambda: words in page.text("fieldset.slot .hint[role=status]"))
    assert button.text in {"Record a cough", "Record again"}
    assert button.is_enabled()
    tracks = page.driver.execute_script("return stream.getTracks().map((t) => t.readyState);")
    assert tracks == ["ended"]
