"""Tests the page in a real browser: Debian's Chromium, if it is or can be installed."""

import json
import shutil
import subprocess
import urllib.parse

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


def opened(chromium, page, scratch, width):
    """Returns console lines, requested hosts, and a screenshot."""
    net, shot = scratch / "net.json", scratch / f"{page.stem}_{width}.png"
    profile = scratch / f"profile_{page.stem}_{width}"
    command = [
        chromium, *OPTIONS, f"--user-data-dir={profile}", f"--log-net-log={net}",
        f"--window-size={width},2500", f"--screenshot={shot}", f"file://{page}",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    events = json.loads(net.read_text())["events"]
    addresses = [event["params"]["url"] for event in events if "url" in event.get("params", {})]
    hosts = {urllib.parse.urlparse(a).hostname for a in addresses if a.startswith("http")}
    return console, hosts, shot


def wide(chromium, page, scratch, width):
    """Returns the right edge of the rightmost element at `width`; windows are at least 500 wide."""
    probe = scratch / "probe.html"
    script = """<script>
      const all = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll"));
      document.title = Math.max(...all.map((e) => e.getBoundingClientRect().right));
    </script></body>"""
    narrow = f"<style>html {{ width: {width}px }}</style></head>"
    text = page.read_text().replace("</body>", script).replace("</head>", narrow)
    text = text.replace("default-src 'none'", "script-src 'unsafe-inline'")  # for the probe
    probe.write_text(text)
    command = [
        chromium, *OPTIONS, f"--user-data-dir={scratch / f'probe_{width}'}",
        f"--window-size={width},800", "--dump-dom", f"file://{probe}",
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return float(dom.partition("<title>")[2].partition("</title>")[0])


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
