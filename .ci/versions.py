"""Do readers of the documentation find the other versions? python versions.py PAGES VERSION.

PAGES is what `make docs-version` wrote for 0.0.0 and VERSION. Without a browser only the files are looked at.
"""

import functools
import http.server
import json
import shutil
import sys
import threading
from pathlib import Path

pages, version = Path(sys.argv[1]), sys.argv[2]

listed = [(one["version"], one["aliases"]) for one in json.loads((pages / "versions.json").read_text())]
assert listed == [(version, ["latest"]), ("0.0.0", [])], listed
for name in ("0.0.0", version):
    assert f"whyprompt {version}" in (pages / name / "tutorial" / "index.html").read_text(), name
assert f"../{version}/" in (pages / "latest" / "index.html").read_text()
assert "latest/" in (pages / "index.html").read_text()
print(f"versions of the documentation: {', '.join(name for name, _ in listed)}")


SHOWN = "return [...document.querySelectorAll('.md-version__link')].map(one => one.textContent.trim())"
OUTDATED = "return document.querySelector('[data-md-component=outdated]')?.hidden === false"


def look(root: str, chromium: str, chromedriver: str) -> None:
    """Go from version to version as a reader does."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1366,900"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    wait = WebDriverWait(driver, 60)
    try:
        # Whoever comes without a version gets the latest, and is not told that there is a later one.
        driver.get(root)
        wait.until(lambda d: d.current_url == f"{root}{version}/")
        wait.until(lambda d: d.execute_script(SHOWN) == [version, "0.0.0"])
        assert not driver.execute_script(OUTDATED)
        # A page of the older version says that it is, and its list leads to the same page of the latest.
        driver.get(f"{root}0.0.0/tutorial/")
        wait.until(lambda d: d.execute_script(SHOWN) == [version, "0.0.0"])
        wait.until(lambda d: d.execute_script(OUTDATED))
        driver.execute_script("document.querySelector('.md-version__link').click()")
        wait.until(lambda d: d.current_url == f"{root}{version}/tutorial/")
    finally:
        driver.quit()


found = shutil.which("chromium"), shutil.which("chromedriver")
if None in found:
    print("no chromium: the list of versions was not looked at in a browser")
    sys.exit()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the pages without a line for each."""

    def log_request(self, *_: object) -> None:
        """Say nothing."""


served = functools.partial(Quiet, directory=str(pages))
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    look(f"http://127.0.0.1:{server.server_port}/", *found)
    server.shutdown()
print("a browser shows the list, the note on pages of an older version, and the same page of the latest")
