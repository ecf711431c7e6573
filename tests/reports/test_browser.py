"""The report in a browser: no errors, nothing asked for, nothing sticking out, on a phone and on a desk."""

from __future__ import annotations

import io
from pathlib import Path

import browser
import numpy as np
import pytest
from outputs import BEGAN, a_run, done, failed, make
from PIL import Image

import gpupipe
from gpupipe.outcome import Event
from gpupipe.sinks.pickles import dumps

pytestmark = pytest.mark.skipif(browser.binary() is None, reason="no chromium here (apt-get install chromium)")

PHONE, DESK = (390, 844), (1280, 900)
LONG = "a-very-long-name-without-any-place-to-break-it-" * 4


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    made = browser.Browser(str(browser.binary()), tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of a rich output, of a huge one's ledger and of one with nothing in it."""
    folder = tmp_path_factory.mktemp("pages")
    random = np.random.default_rng(0)
    vids = [f"clip{n}" for n in range(60)] + [LONG, "<script>alert(1)</script>", "日本語 🎬"]
    reasons = ("TruncatedError", "hang", "UnheardOf" + LONG)
    shards = [
        [done(n, n / 4, worker=n % 5, seconds=float(random.uniform(0.1, 1.5))) for n in range(0, 50)],
        [failed(n, reasons[n % 3], f"/data/{LONG}/x.mp4: is cut off", finished=BEGAN + n / 4) for n in range(50, 63)],
    ]
    runs = [[a_run(0, 9), a_run(90_000, 9, host=LONG)], [a_run(1, 16)]]
    kinds = ("death", "hang", "recycle", "stop", "redo", "notice")
    events = [Event(BEGAN + n, kind, n - 1 if n < 3 else -1, -1, f"{kind} {LONG}") for n, kind in enumerate(kinds)]
    rich = make(folder / LONG[:100], vids, shards, runs, events)
    for ordinal in range(50):
        sample = rich / f"sample_{ordinal:06d}_clip{ordinal}"
        sample.mkdir()
        picture = random.integers(0, 256, (4, 40, 64, 3), dtype=np.uint8)
        (sample / "video_input.pkl").write_bytes(dumps(picture))
    rows = [done(n, n / 50, worker=n % 300, seconds=3.0) for n in range(20_000)]
    many = make(folder / "many", ["v"] * 20_000, [rows], [[a_run(seconds=400.0)]], format="npy")
    outs = {"rich": rich, "many": many, "bare": make(folder / "bare", ["a"])}
    return {name: gpupipe.report(out) for name, out in outs.items()}


@pytest.mark.parametrize("name", ["rich", "many", "bare"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_shows_and_asks_for_nothing(chromium, pages, name, size):
    look = chromium.show(pages[name].as_uri(), *size)
    assert look.said == []
    assert look.asked == []
    assert look.sticking_out == []
    assert look.width == size[0]


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_light_and_dark(chromium, pages, size):
    def paper(dark):
        with Image.open(io.BytesIO(chromium.show(pages["rich"].as_uri(), *size, dark=dark).png)) as image:
            return np.asarray(image.convert("L"))

    assert np.median(paper(False)) > 200
    assert np.median(paper(True)) < 60


def test_a_bad_page_would_be_noticed(chromium, tmp_path: Path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'>"
        "<p style='width:900px'>wide</p><img src='none.png'><script>console.error('x'); throw new Error('y')</script>"
    )
    look = chromium.show(page.as_uri(), *PHONE)
    assert len(look.said) >= 3  # the error, the exception, the picture
    assert look.asked == [(tmp_path / "none.png").as_uri()]
    assert look.width > PHONE[0]
    assert look.sticking_out
