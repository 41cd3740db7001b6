"""Figures: units, ticks, bands, letters, colours, and what is saved."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from helpers.run_directories import make, write
from ssljax import fonts
from ssljax.report import curves, pictures, plots, report, sheets, svg
from ssljax.report import groups as grouping
from ssljax.report.runs import read, read_all
from ssljax.storage import files

BLACK = re.compile(rb"(?:fill|stroke): (#[0-9a-f]{6})")


def grouped(*paths):
    return grouping.group(read_all(paths))


def accuracy(row):
    return 100 * row["test/accuracy_ema"]


def test_bands_end_at_0_and_100_percent(tmp_path):
    for seed in (1, 2):
        make(tmp_path / str(seed), seed=seed, evaluations=12)
    (group,) = grouped(tmp_path)
    _, means, stds = plots._over_runs(group.runs, accuracy)
    assert (means + stds).max() > 100  # this test can fail
    reached = []
    for is_percent in (True, False):
        figure = plots.curve([group], accuracy, ylabel="accuracy, %", is_percent=is_percent)
        (axes,) = figure.axes
        (band,) = axes.collections
        corners = band.get_paths()[0].vertices[:, 1]
        reached.append((corners.min() >= 0, corners.max() <= 100, axes.get_ylim()[1] <= 100))
    assert reached == [(True, True, True), (bool((means - stds).min() >= 0), False, False)]


def test_ticks_are_evaluations(tmp_path):
    run = make(tmp_path / "run", evaluations=25)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["step"] = 7 * row["step"] + 3
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (group,) = grouped(run)
    figure = plots.curve([group], accuracy, ylabel="")
    (axes,) = figure.axes
    ticks = [int(tick) for tick in axes.get_xticks()]
    assert {*ticks} <= {row["step"] for row in rows}
    assert len(ticks) == 5
    assert ticks[-1] == 1753
    assert [label.get_text() for label in axes.get_xticklabels()][-1] == "1,753"
    assert axes.get_xlabel() == "training step"
    assert plots.some_steps([5]) == [5]
    assert plots.some_steps([1, 2, 1000]) == [1000]
    assert plots.some_steps([]) == []


def test_every_figure_in_percent_is_apart_from_the_others(tmp_path):
    make(tmp_path / "run", evaluations=3)
    (drawn,) = curves.curves(grouped(tmp_path)).values()
    kinds = [picture.is_percent for picture in drawn]
    assert kinds == sorted(kinds, reverse=True)
    assert [picture.name for picture in drawn if not picture.is_percent] == ["digits_40_loss"]
    report.write([tmp_path], tmp_path)
    page = (tmp_path / "report.html").read_text()
    grids = page.split('<div class="figures">')[1:3]
    assert "Mask rate" in grids[0]
    assert "Training loss" not in grids[0]
    assert "Training loss" in grids[1]


def test_axes_have_units(tmp_path):
    for curve in curves._CURVES:
        assert curve.ylabel.endswith(", %") == curve.is_percent
        assert curve.ylabel not in ("", "share")
    figure = plots.reliability(read(make(tmp_path / "run"), "run").predictions.reliability)
    top, bottom = figure.axes
    labels = [top.get_ylabel(), bottom.get_ylabel(), bottom.get_xlabel()]
    assert labels == ["accuracy, %", "images, %", "confidence, %"]
    assert top.get_ylim() == bottom.get_xlim() == (0, 100)


def test_the_page_has_one_legend_and_each_saved_figure_its_own(tmp_path):
    make(tmp_path / "runs" / "a", evaluations=3)
    make(tmp_path / "runs" / "b", evaluations=3, method="supervised")
    groups = grouped(tmp_path / "runs")
    figures = [plots.curve(groups, accuracy, ylabel="", legend=x) for x in (False, True)]
    assert [len(figure.legends) for figure in figures] == [0, 1]
    texts = [text.get_text() for text in figures[1].legends[0].get_texts()]
    assert texts == [entry.label for entry in curves.legend(groups)] == ["fixmatch", "supervised"]
    report.write([tmp_path / "runs"], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count('<ul class="legend">') == 1
    (picture, *_) = curves.curves(groups)["digits, 40 labels"]
    assert picture.uri in page
    assert (tmp_path / picture.file).read_bytes() == picture.alone != picture.data
    assert f'<a href="{picture.file}" download>SVG</a>' in page


def test_lines_have_the_look_that_the_legend_says(tmp_path):
    looks = [plots.look(i) for i in range(20)]
    assert len({*looks}) == 20
    for i in range(9):
        make(tmp_path / str(i), evaluations=2, method_args__threshold=0.1 * i)
    groups = grouped(tmp_path)
    (axes,) = plots.curve(groups, accuracy, ylabel="").axes
    lines = [(line.get_color(), line.get_linestyle()) for line in axes.lines]
    assert lines == [tuple(look) for look in looks[:9]]
    entries = curves.legend(groups)
    assert entries[0].color == looks[0].color
    assert entries[7].color == "currentColor"  # follows the page, as the figure does
    assert [bool(entry.dashes) for entry in entries[7:]] == [False, True]


def test_a_dark_page_swaps_all_ink_and_paper(tmp_path):
    make(tmp_path / "run", evaluations=3)
    (group,) = grouped(tmp_path)
    drawn = [*curves.curves([group])["digits, 40 labels"], *pictures.of_group(group, 1)]
    swapped = {svg.INK.encode(), svg.PAPER.encode()}
    for picture in drawn:
        assert picture.data.count(b"prefers-color-scheme:dark") == 1
        style = picture.data[picture.data.index(b"<style>") :]
        drawing = style[style.index(b"</style>") :]
        colors = {color for color in BLACK.findall(drawing) if len({*color[1:]}) < 4}
        assert b"#000000" not in colors, picture.name
        assert swapped & {*BLACK.findall(drawing)} == swapped, picture.name
        for color in swapped:
            assert b'[style*="fill: ' + color + b'"]' in style[: style.index(b"</style>")]


def test_classes_that_the_font_cannot_write_are_numbered_and_named_below(tmp_path):
    run = make(tmp_path / "run", evaluations=2, classes=4)
    write(run / "data.json", {"image_shape": [8, 8, 1], "class_names": ["✈", "日本", "c", "犬"]})
    (group,) = grouped(run)
    assert all(map(fonts.is_drawn, ("✈", "é", "±", "→", "Ω")))
    assert not fonts.is_drawn("a日")
    assert fonts.replaced("✈ 日本") == "✈ ??"
    captions = {picture.title: picture.text for picture in pictures.of_group(group, 1)}
    for title in ("Confusion matrix", "Accuracy of each class"):
        assert "class 1 is 日本, class 3 is 犬." in captions[title]
        assert "✈" not in captions[title]


def test_error_bars_stay_within_0_and_100_percent():
    of_runs = np.ma.array([[0.0, 1.0, 0.5], [0.3, 0.8, 0.5]])
    (axes,) = plots.class_accuracy(of_runs, ["a", "b", "c"]).axes
    (bars,) = [c for c in axes.collections if len(c.get_segments())]
    ends = np.array([[segment[0, 0], segment[1, 0]] for segment in bars.get_segments()])
    assert ends.min() >= 0
    assert ends.max() <= 100
    std = 100 * 0.3 / 2**0.5
    np.testing.assert_allclose(ends[0], [0, 15 + std])


def test_a_confusion_matrix_without_numbers_has_a_scale():
    few, many = (plots.confusion(np.eye(n), [str(i) for i in range(n)]) for n in (20, 21))
    assert len(few.axes) == 1
    assert few.axes[0].texts
    assert [axes.get_ylabel() for axes in many.axes] == [
        "true class",
        "images of the true class, %",
    ]


def labelled(run, said):
    """Writes a `labelled.png` of two classes, and what it says of itself."""
    sheet = Image.new("RGB", (20 + 32 * 3, 64), "white")
    for i, color in enumerate(("red", "lime", "blue")):
        sheet.paste(color, (20 + 32 * i, 32, 20 + 32 * (i + 1), 64))
    sheet.info["images"] = json.dumps(said)
    files.write_picture(run / "labelled.png", sheet)


def test_the_labelled_images_have_their_names_below_them(tmp_path):
    run = make(tmp_path / "run", evaluations=2, classes=2)
    names = [["a/<1>.jpg"], ["b/2.jpg", "b/✈.jpg", "b/\x1b4.jpg"]]
    labelled(run, {"left": 20, "names": names})
    (group,) = grouped(run)
    (sheet,) = sheets.sheets(group)
    assert [strip.class_name for strip in sheet.strips] == ["<class 0>", "<class 1>"]
    assert [*map(list, (strip.names for strip in sheet.strips))] == [
        ["<1>.jpg"], ["2.jpg", "✈.jpg", "\\x1b4.jpg"]
    ]  # fmt: skip
    report.write([run], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<span>2.jpg</span><span>✈.jpg</span>" in page
    assert 'alt="labelled images of &lt;class 0&gt;: &lt;1&gt;.jpg"' in page
    (tmp_path / "strip.png").write_bytes(sheet.strips[1].picture.data)
    pixels = np.asarray(Image.open(tmp_path / "strip.png"))
    assert pixels.shape == (32, 96, 3)
    assert pixels[16, [16, 48, 80]].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.mark.parametrize(
    "changes",
    [
        {"names": [["a"]]},
        {"names": [["a"], ["b"] * 4]},
        {"names": 3},
        {"names": []},
        {"left": "x"},
        {"left": -1},
        {"left": 10**6},
        {"left": None},
    ],
)
def test_a_sheet_that_says_what_does_not_fit_is_shown_in_one_piece(tmp_path, changes):
    run = make(tmp_path / "run", evaluations=2, classes=2)
    labelled(run, {"left": 20, "names": [["a"], ["b", "c", "d"]]} | changes)
    (sheet,) = sheets.sheets(grouped(run)[0])
    assert not sheet.strips
    assert sheet.picture.data == (run / "labelled.png").read_bytes()
    assert sheet.classes == "<class 0>, <class 1>"


def test_a_sheet_that_is_too_large_to_be_opened_is_shown_in_one_piece(tmp_path, monkeypatch):
    run = make(tmp_path / "run", evaluations=2, classes=2)
    labelled(run, {"left": 20, "names": [["a"], ["b"]]})
    (group,) = grouped(run)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses more than twice as many
    assert not sheets.sheets(group)[0].strips
