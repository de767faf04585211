"""Takes the pictures of the page that lie in this folder, from a running page, with Playwright and Chromium.

    editlab serve --no-browser --port 8866
    python docs/pictures/take.py http://127.0.0.1:8866/

It films one edit in a session of its own, and photographs a session in several widths: that one, or with `--session`
the one of that key. Playwright comes with editlab's extra `test`, Pillow with bokeh.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
FILM = (1280, 800)  # act and result are on one screen
PICTURES = {
    "page-1280-light": (1280, 1500, "light"),
    "page-1920-dark": (1920, 1320, "dark"),
    "page-390-light": (390, 1700, "light"),
}
PATIENCE = 180_000  # milliseconds, for a model on a slow machine
SETTLED = 3_000  # milliseconds, for charts and bars to come to rest


def opened(browser: Browser, address: str, width: int, height: int, scheme: str = "light") -> Page:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    page.goto(address, wait_until="commit")
    page.locator(".el-make").wait_for()
    page.wait_for_timeout(SETTLED)
    return page


class Film:
    """Frames of a page, each with how long it is shown."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[tuple[Image.Image, int]] = []

    def take(self, milliseconds: int) -> None:
        picture = Image.open(BytesIO(self.page.screenshot())).convert("RGB")
        self.frames.append((picture, milliseconds))

    def show(self, selector: str, milliseconds: int) -> None:
        """With this part of the page on top, under the line that stays there."""
        self.page.locator(selector).first.evaluate(
            "(part) => window.scrollTo(0, part.getBoundingClientRect().top + window.scrollY - 64)"
        )
        self.page.wait_for_timeout(SETTLED)
        self.take(milliseconds)

    def save(self, file: Path) -> None:
        pictures, durations = zip(*self.frames, strict=True)
        pictures[0].save(
            file, save_all=True, append_images=pictures[1:], duration=list(durations), loop=0, quality=72, method=6
        )


def film_an_edit(page: Page) -> Film:
    """A fact is chosen, what the model says of it is seen, it is written, and then what that did."""
    film = Film(page)
    film.take(1000)
    page.get_by_role("button", name="A tower moves").click()
    page.locator(".el-says-now .el-bars").wait_for()
    page.locator(".el-risk-level").wait_for()
    page.wait_for_timeout(500)
    film.take(2200)
    page.get_by_role("button", name="Apply edit").click()
    for _ in range(6):
        page.wait_for_timeout(500)
        film.take(300)
    page.locator(".el-state", has_text="1 edit").wait_for()
    page.locator(".el-card-rewrite").wait_for()
    page.wait_for_timeout(SETTLED)
    film.take(3400)
    film.show(".el-analysis", 2400)
    return film


def photograph(browser: Browser, address: str) -> None:
    for name, (width, height, scheme) in PICTURES.items():
        page = opened(browser, address, width, height, scheme)
        picture = Image.open(BytesIO(page.screenshot()))
        picture.convert("RGB").save(HERE / f"{name}.png", optimize=True)
        page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Takes the pictures of the page.")
    parser.add_argument("address", help="of a running page, http://127.0.0.1:8866/ say")
    parser.add_argument("--session", help="the key of the session to photograph; it is not changed")
    parser.add_argument("--chromium", help="the browser's program; default: Playwright's own")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        page = opened(browser, options.address, *FILM)
        film_an_edit(page).save(HERE / "edit.webp")
        key = options.session or parse_qs(urlsplit(page.url).query)["session"][0]
        page.close()
        photograph(browser, f"{options.address}?session={key}")
        browser.close()


if __name__ == "__main__":
    main()
