"""A Chromium for tests that look at pages as a reader's browser does."""

import json
import os
import re
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("QPEFT_BROWSER", next(filter(None, map(shutil.which, NAMES)), ""))
"""The command; empty where there is none, or where QPEFT_BROWSER is empty. Tests then say that they did not run."""


def browse(page, folder, *options):
    """Messages of the console, and addresses that the page asks for, when the browser shows it."""
    log = folder / "net.json"
    command = [
        BROWSER, "--headless", "--hide-scrollbars", "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}",
        "--window-size=1000,2000", f"--screenshot={folder / 'page.png'}", *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # What the browser asks for by itself is "not an origin"; a page in a file is the origin null.
    asked = {event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin"}
    return re.findall(r"CONSOLE.*", done.stderr), sorted(asked)


def widths(page, folder, width):
    """Of the window and of what is in it, in pixels, when the page is shown in a window so many pixels wide."""
    # The window of a browser has a smallest width; that of a frame has none. What the page forbids itself goes.
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    tell = "<script>console.log(`widths ${innerWidth} ${document.documentElement.scrollWidth}`)</script>"
    (folder / "inner.html").write_text(text.replace("</body>", tell + "</body>"), encoding="utf-8")
    outer = folder / "outer.html"
    outer.write_text(f'<iframe src="inner.html" width="{width}" height="800" style="border: 0"></iframe>')
    console, _ = browse(outer, folder)
    found = re.search(r"widths (\d+) (\d+)", " ".join(console))
    return int(found[1]), int(found[2])
