"""`make site-check`: the built site in a real browser.

Chromium opens every page from the disk, narrow and wide, and writes a picture of it into build/site/seen for a person
to look at. A page fails if its console holds an error, if it asks for anything from another host, if a link or a
picture leads nowhere, or if it is wider than the window. On the explorer's page the controls are moved, with the
keyboard too, and each time the numbers shown are compared with the stored tables."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from analysis_lib.errors import StudyError
from analysis_lib.reports.site import explorer, tried
from analysis_lib.reports.site.build import SITE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--disable-quic"]  # fmt: skip
SCREENS = {  # pictures: pixels wide, scheme, pages
    "360-dark": (360, "dark", "**/*.html"), "1600-light": (1600, "light", "**/*.html"),
    "360-light": (360, "light", "explorer.html"), "1600-dark": (1600, "dark", "explorer.html"),
}  # fmt: skip
LARGEST = 5e6  # bytes of a model's data in the explorer, its questions' frames among them
LINKS = "[...document.querySelectorAll('a[href]')].map(a => a.href)"
BROKEN = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
PLACES = "[...document.querySelectorAll('[id]')].map(e => e.id)"
TOO_WIDE = "document.documentElement.scrollWidth - window.innerWidth"
Page = Any  # playwright's, which is imported late
Links = dict[Path, tuple[set[str], set[str]]]  # of a page: the places in it, and its links


def browser_file() -> str:
    """The installed browser; StudyError, saying how to install one, if there is none."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    raise StudyError("site-check did not run: no browser; install one with `apt-get install chromium`")


def watch(page: Page, faults: list[str]) -> None:
    """From now on add what goes wrong in a page to `faults`."""
    page.on("console", lambda said: said.type == "error" and faults.append(f"{page.url}: console: {said.text}"))
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    page.on("requestfailed", lambda request: faults.append(f"{page.url}: cannot load {request.url}"))
    here = ("file:", "data:", "blob:")
    page.on("request", lambda asked: asked.url.startswith(here) or faults.append(f"{page.url}: asks for {asked.url}"))


def look(page: Page, files: list[Path], html: Path, folder: Path, links: Links) -> Iterator[str]:
    """Open the pages, take their pictures into `folder` and their links into `links`; yields what is wrong."""
    for file in files:
        page.goto(file.as_uri())
        tried.wait(page)
        links[file] = set(page.evaluate(PLACES)), set(page.evaluate(LINKS))
        yield from (f"{file}: broken picture {source}" for source in page.evaluate(BROKEN))
        if (over := page.evaluate(TOO_WIDE)) > 0:
            yield f"{file}: {over} pixels wider than a window of {page.viewport_size['width']}"
        page.screenshot(path=folder / file.relative_to(html).with_suffix(".png"), full_page=True)


def dead_links(html: Path, links: Links) -> Iterator[str]:
    """The internal links that lead to no file of the site, or to no place in one."""
    for file, (_, leads) in links.items():
        for link in sorted(link for link in leads if link.startswith("file:")):
            target, place = (unquote(part) for part in (urlsplit(link).path, urlsplit(link).fragment))
            if not Path(target).is_file() or html not in Path(target).parents:
                yield f"{file}: dead link {link}"
            elif place and place not in links.get(Path(target), ({place}, ()))[0]:
                yield f"{file}: no such place {link}"


def too_large(html: Path) -> Iterator[str]:
    """The models whose files in the explorer weigh too much, the frames that they share counted for each."""
    for model in {key.partition("/")[0] for key in explorer.stored_sets()}:
        files = [file for part in (model, "frames") for file in (html / "explorer" / part).rglob("*.*")]
        if (size := sum(file.stat().st_size for file in files)) > LARGEST:
            yield f"the explorer's data of {model} are {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}"


def check(html: Path = SITE / "html") -> list[str]:
    """Everything that is wrong with the site. StudyError if there is no browser or no site."""
    browser_file()
    if not (html / "index.html").exists():
        raise StudyError("site-check did not run: there is no site; make it with `make site`")
    from playwright.sync_api import sync_playwright  # heavy, and only there once the site's packages are installed

    faults, links = list(too_large(html)), {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_file(), args=FLAGS)
        for name, (width, scheme, pages) in SCREENS.items():
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            watch(page, faults)
            files = sorted(file for file in html.glob(pages) if "_static" not in file.parts)
            faults += look(page, files, html, SITE / "seen" / name, links)
            if name == "1600-light":
                faults += tried.explore(page, html / "explorer.html")
            page.close()
        browser.close()
    print(f"looked at {len(links)} pages; their pictures are in {SITE / 'seen'}")
    return faults + list(dead_links(html, links))


if __name__ == "__main__":
    try:
        found = check()
    except StudyError as error:
        sys.exit(f"error: {error}")
    print("\n".join([*found, f"site-check: {len(found)} faults"]))
    sys.exit(bool(found))
