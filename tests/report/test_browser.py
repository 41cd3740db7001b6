"""Tests the page in a real browser: Debian's Chromium, if it is or can be installed."""

import html
import json
import shutil
import subprocess
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from helpers.run_directories import make
from ssljax.report import report

pytestmark = pytest.mark.slow
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    if shutil.which("chromium") is None:
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "chromium"]):
            done = shutil.which("apt-get") and subprocess.run(command, capture_output=True)
            if not done or done.returncode:
                pytest.skip("no chromium, and Debian's cannot be installed")
    return shutil.which("chromium")


def opened(chromium, page, scratch, width, *, is_dark=False):
    """Console lines, hosts that were asked for anything, and a screenshot."""
    name = f"{page.stem}_{width}{'_dark' * is_dark}"
    net, shot = scratch / "net.json", scratch / f"{name}.png"
    profile = scratch / f"profile_{name}"
    scheme = f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"
    command = [
        chromium, *OPTIONS, scheme, f"--user-data-dir={profile}", f"--log-net-log={net}",
        f"--window-size={width},2500", f"--screenshot={shot}", f"file://{page}",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    events = json.loads(net.read_text())["events"]
    addresses = [event["params"]["url"] for event in events if "url" in event.get("params", {})]
    hosts = {urllib.parse.urlparse(a).hostname for a in addresses if a.startswith("http")}
    return console, hosts, shot


WIDTH = """
  const all = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll"));
  return Math.max(...all.map((e) => e.getBoundingClientRect().right));
"""


def wide(chromium, page, scratch, width):
    """Where the rightmost element ends, on a page of `width`; windows have 500 pixels at least."""
    return evaluated(chromium, page, scratch, width, WIDTH)


def evaluated(chromium, page, scratch, width, script):
    """What a script returns on a page of `width`."""
    probe = scratch / "probe.html"
    script = f"<script>document.title = JSON.stringify((() => {{{script}}})());</script></body>"
    narrow = f"<style>html {{ width: {width}px }}</style></head>"
    text = page.read_text().replace("</body>", script).replace("</head>", narrow)
    text = text.replace("default-src 'none'", "script-src 'unsafe-inline'")  # for the probe
    probe.write_text(text)
    command = [
        chromium, *OPTIONS, f"--user-data-dir={scratch / f'probe_{width}'}",
        f"--window-size={width},800", "--dump-dom", f"file://{probe}",
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return json.loads(html.unescape(dom.partition("<title>")[2].partition("</title>")[0]))


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_opens_without_errors_or_requests(chromium, tmp_path, width):
    for seed in (1, 2, 3):
        make(tmp_path / f"seed={seed}", seed=seed)
    make(tmp_path / "other", method="supervised", method_args__view="strong", steps=100)
    report.write([tmp_path], tmp_path, oracle=True)
    page = tmp_path / "report.html"
    blank = tmp_path / "blank.html"
    blank.write_text("<!DOCTYPE html><title>blank</title>")
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://example.invalid/x.png"><script>console.error("!")</script>')

    console, hosts, _ = opened(chromium, bad, tmp_path, width)
    assert console  # shows that this test can fail
    assert "example.invalid" in hosts
    _, own, empty = opened(chromium, blank, tmp_path, width)  # Chromium's own requests
    console, hosts, shot = opened(chromium, page, tmp_path, width)
    assert console == []
    assert hosts <= own
    assert 0.9 * width < wide(chromium, page, tmp_path, width) <= width  # nothing overflows
    colors = len(Image.open(shot).convert("RGB").getcolors(1 << 20))
    assert colors > 50 > len(Image.open(empty).convert("RGB").getcolors(1 << 20))


SORT = """
  const table = document.querySelector("table.sorts");
  const shown = (column) => [...table.querySelectorAll("tbody tr")]
    .map((row) => [row.getBoundingClientRect().top, row.children[column].textContent])
    .sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
  const found = [shown(1)];
  for (const way of ["a1", "d1", "a0"]) {
    table.querySelector("." + way).click();
    found.push(shown(1));
  }
  const lefts = (what) => [...table.querySelectorAll(what)]
    .map((e) => Math.round(e.getBoundingClientRect().left));
  const head = lefts("th"), cells = lefts("tbody tr:first-child td");
  return {found, head, cells, top: table.querySelector("th").getBoundingClientRect().top,
    errors: table.querySelectorAll("th")[1].getBoundingClientRect().right};
"""


@pytest.mark.parametrize("width", [1280, 400])
def test_tables_sort_without_a_script_of_the_page(chromium, tmp_path, width):
    for number, method in enumerate(("fixmatch", "supervised", "mixmatch", "uda")):
        make(tmp_path / method, method=method, seed=number, evaluations=3)
    report.write([tmp_path], tmp_path)
    assert "<script" not in (tmp_path / "report.html").read_text()
    seen = evaluated(chromium, tmp_path / "report.html", tmp_path, width, SORT)
    before, up, down, by_name = ([float(text) for text in texts] for texts in seen["found"])
    assert up == sorted(before) != down == sorted(before, reverse=True)
    assert by_name == before  # rows are written by the names of their methods
    assert seen["head"] == seen["cells"]  # columns are under their heads
    assert seen["errors"] < width  # the error is seen without scrolling


def test_a_dark_page_is_dark_with_its_figures(chromium, tmp_path):
    make(tmp_path / "run", evaluations=3)
    report.write([tmp_path], tmp_path)
    light, dark = (
        Image.open(opened(chromium, tmp_path / "report.html", tmp_path, 1280, is_dark=x)[2])
        for x in (False, True)
    )
    means = [np.asarray(shot.convert("L"))[:1400].mean() for shot in (light, dark)]
    assert means[0] > 200
    assert means[1] < 60
    picture = tmp_path / "report_figures" / "digits_40_test_error.svg"
    alone = Image.open(opened(chromium, picture, tmp_path, 400, is_dark=True)[2]).convert("L")
    assert np.asarray(alone)[20:120, 60:200].mean() < 60
