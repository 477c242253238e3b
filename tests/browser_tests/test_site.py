"""The built site, page by page, as a reader sees it: at a desk, in the dark, on a phone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

SITE = Path(__file__).parents[2] / "site"
PAGES = [path.relative_to(SITE).as_posix() for path in sorted(SITE.rglob("*.html")) if path.name != "404.html"]
PICTURES = [path.relative_to(SITE).as_posix() for path in sorted(SITE.rglob("*.svg"))]
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}

each_page = pytest.mark.parametrize("path", PAGES)


class Anchors(HTMLParser):
    """The ids of a page and where its links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name == "id":
                self.ids.add(value)
            elif value and (tag, name) in {("a", "href"), ("img", "src"), ("source", "srcset")}:
                self.links.add(value)


ANCHORS = {path: Anchors((SITE / path).read_text(encoding="utf-8")) for path in PAGES}


def broken(path: str, link: str) -> bool:
    """Return whether a link of a page leads nowhere; other sites are not asked."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (SITE / path).parent / unquote(parts.path) if parts.path else SITE / path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return True
    name = target.resolve().relative_to(SITE.resolve()).as_posix()
    return bool(parts.fragment) and name in ANCHORS and unquote(parts.fragment) not in ANCHORS[name].ids


def test_the_site_is_built() -> None:
    assert "index.html" in PAGES, "run make docs"


@each_page
def test_no_link_of_a_page_leads_nowhere(path: str) -> None:
    assert [link for link in sorted(ANCHORS[path].links) if broken(path, link)] == []


@pytest.mark.parametrize("link", ["nowhere.html", "#nowhere", "nowhere.svg", "index.html#nowhere"])
def test_a_link_that_leads_nowhere_is_found(link: str) -> None:
    assert broken("index.html", link)


@pytest.fixture(scope="session")
def phone(browser: Browser) -> Iterator[BrowserContext]:
    """Return a window as wide as a phone."""
    with browser.new_context(viewport=PHONE, device_scale_factor=2, has_touch=True) as context:
        yield context


@pytest.fixture(scope="session")
def dark(browser: Browser) -> Iterator[BrowserContext]:
    """Return a window of a desk's screen, on a system that is set to dark."""
    with browser.new_context(viewport=DESK, color_scheme="dark") as context:
        yield context


@pytest.fixture
def desk(browser: Browser) -> Iterator[Page]:
    """Return a page in a window of a desk's screen."""
    with browser.new_context(viewport=DESK, color_scheme="light") as context:
        yield context.new_page()


# what leaves the screen, what scrolls sideways, and text whose end cannot be seen; folded parts are unfolded
LOOK = """
() => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  const width = document.documentElement.clientWidth;
  const found = [];
  const tell = (what, element) => found.push(`${what}: <${element.localName} class="${element.className}"> ` +
    element.textContent.trim().slice(0, 60));
  if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    const isEmpty = !element.textContent.trim() && !element.querySelector("img, svg") && !element.matches("img, svg");
    if (isEmpty || !box.width || !box.height || !element.checkVisibility()) continue;
    const inside = element.closest("article");
    const moves = element.matches("p > img");
    if (!moves && box.width > width + 1) tell("wider than the screen", element);
    else if (!moves && inside && box.right > width + 1) tell("leaves the screen", element);
    const style = getComputedStyle(element);
    const isBox = style.display !== "inline" && box.width > 2;
    if (inside && isBox && element.scrollWidth > element.clientWidth + 1) {
      const isPicture = element.matches("p:has(> img)");
      if (style.overflowX !== "visible" && !isPicture) tell("its text is cut off", element);
    }
  }
  return found;
}
"""


def opened(context: BrowserContext, address: str, path: str) -> tuple[Page, list[str]]:
    """Return a page, and what goes wrong on it: errors, warnings, and requests that fail or leave the site."""
    page, problems = context.new_page(), []
    page.on("console", lambda said: problems.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"{request.url}: {request.failure}"))
    page.on("request", lambda request: None if request.url.startswith(address) else problems.append(request.url))
    page.goto(f"{address}/{path}", wait_until="load")
    return page, problems


@each_page
def test_a_page_fits_a_phone_and_reports_no_error(path: str, phone: BrowserContext, address: str) -> None:
    page, problems = opened(phone, address, path)
    problems += page.evaluate(LOOK)
    problems += page.evaluate("() => [...document.images].filter((each) => !each.naturalWidth).map((each) => each.src)")
    page.close()
    assert problems == []


def test_what_does_not_fit_a_phone_is_found(phone: BrowserContext, address: str) -> None:
    page = phone.new_page()
    page.goto(f"{address}/index.html")
    page.evaluate(
        """() => document.querySelector("article").insertAdjacentHTML("beforeend",
            '<div style="width: 500px">wide</div><div style="width: 90px; overflow: hidden; white-space: nowrap">' +
            "a text that is cut off</div>")"""
    )
    found = page.evaluate(LOOK)
    page.close()
    assert any(each.endswith("wide") for each in found)
    assert any(each.startswith("its text is cut off") for each in found)


@each_page
def test_a_page_fits_a_desk_in_the_dark_and_reports_no_error(path: str, dark: BrowserContext, address: str) -> None:
    page, problems = opened(dark, address, path)
    scheme = page.locator("body").get_attribute("data-md-color-scheme")
    fits = page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.close()
    assert (problems, scheme, fits) == ([], "slate", True)


@pytest.mark.parametrize("words", ["private swarm", "BlocksMissingError"])
def test_search_finds(words: str, desk: Page, address: str) -> None:
    desk.goto(f"{address}/index.html")
    desk.locator("dialog[aria-label='Search']").wait_for(state="attached")  # its script has begun
    desk.keyboard.press("Control+k")
    desk.get_by_role("combobox", name="Search").fill(words)
    found = desk.get_by_role("option").filter(has_text=re.compile(re.escape(words), re.IGNORECASE))
    found.first.wait_for()
    found.first.click()
    desk.wait_for_url(re.compile(r"/(private-swarm|swarms|errors|api/errors)\.html"))


def test_dark_mode_switches_with_the_pictures(desk: Page, address: str) -> None:
    desk.goto(f"{address}/index.html")
    body, picture = desk.locator("body"), desk.locator("article picture img").first
    assert body.get_attribute("data-md-color-scheme") == "default"
    before = picture.screenshot()
    desk.locator("label[title='Dark']").click()
    assert body.get_attribute("data-md-color-scheme") == "slate"
    assert picture.screenshot() != before
    desk.reload()
    assert body.get_attribute("data-md-color-scheme") == "slate"
    desk.locator("label[title='Light']").click()
    assert body.get_attribute("data-md-color-scheme") == "default"


@pytest.mark.parametrize("path", PICTURES)
def test_no_text_of_a_picture_leaves_it(path: str, desk: Page, address: str) -> None:
    desk.goto(f"{address}/{path}")
    outside = desk.evaluate(
        """() => {
          const whole = document.documentElement.getBoundingClientRect();
          return [...document.querySelectorAll("text")].filter((text) => {
            const box = text.getBoundingClientRect();
            return box.left < whole.left - 1 || box.right > whole.right + 1 ||
              box.top < whole.top - 1 || box.bottom > whole.bottom + 1;
          }).map((text) => text.textContent);
        }"""
    )
    assert outside == []


@pytest.mark.parametrize("path", PICTURES)
def test_a_picture_fetches_nothing_from_elsewhere(path: str) -> None:
    picture = (SITE / path).read_text(encoding="utf-8")
    assert re.findall(r"""url\(["']?http[^)]*|@import[^;]*|(?:xlink:)?href=["']http[^"']*""", picture) == []


CUT_NAMES = """
() => [...document.querySelectorAll("article pre .n, article pre .nf, article pre .nc")]
  .filter((name) => name.textContent.length <= 24 && name.getClientRects().length > 1).map((name) => name.textContent)
"""


@each_page
def test_no_name_in_code_is_cut_in_its_middle_on_a_phone(path: str, phone: BrowserContext, address: str) -> None:
    page, _ = opened(phone, address, path)
    cut = page.evaluate(CUT_NAMES)
    page.close()
    assert cut == []


def test_a_long_path_ends_its_line_after_a_slash_on_a_phone(phone: BrowserContext, address: str) -> None:
    page, _ = opened(phone, address, "design.html")
    path = page.locator("article td code", has_text="/test_forced_tokens.py").first
    tops = path.evaluate(
        """code => {
          const place = document.createRange();
          const name = [...code.childNodes].find((each) => each.textContent.includes("test_forced"));
          place.selectNodeContents(name);
          return place.getClientRects().length;
        }"""
    )
    page.close()
    assert tops == 1


def test_a_table_of_short_cells_stays_a_table_on_a_phone(phone: BrowserContext, address: str) -> None:
    page, _ = opened(phone, address, "engine.html")
    rows = page.locator("table[data-short] tbody tr")
    tops = rows.first.locator("td").evaluate_all("cells => new Set(cells.map((cell) => cell.offsetTop)).size")
    label = page.evaluate(
        "() => getComputedStyle(document.querySelector('table[data-short] td:last-child'), '::before').content"
    )
    page.close()
    assert (tops, label) == (1, "none")


def test_a_cell_names_its_column_on_a_phone_unless_that_is_plain(phone: BrowserContext, address: str) -> None:
    labels = {}
    for path, column in (("templates.html", "for"), ("commands/index.html", "what it does")):
        page, _ = opened(phone, address, path)
        cell = page.locator("article table").first.locator("tbody td").nth(1)
        labels[column] = cell.evaluate("cell => getComputedStyle(cell, '::before').content")
        page.close()
    assert labels == {"for": '"for: "', "what it does": "none"}


def test_pictures_of_terminals_keep_the_size_of_their_text_on_a_phone(phone: BrowserContext, address: str) -> None:
    page, _ = opened(phone, address, "commands/server.html")
    for picture in page.locator("article p > img").all():
        columns = 120 if "-wide" in (picture.get_attribute("src") or "") else 80
        assert picture.bounding_box()["width"] / columns >= 8
    page.close()
