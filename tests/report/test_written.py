"""The files of a report: what they say, that nothing in them acts, and how large and how fast they are."""

import csv
import io
import re
import time
from html.parser import HTMLParser

import pytest
from PIL import Image

from sslrun.contracts import UserError
from sslrun.report import write
from sslrun.report.draw import NAMES
from sslrun.report.series import curve, validation


class Page(HTMLParser):
    """Tags with their attributes, and text, of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def drawn(swept, make):
    """The swept runs with curves and pictures."""
    for i, path in enumerate(sorted(p for p in swept.iterdir() if p.is_dir())):
        make.curves(path, [0.5, 0.6 + 0.01 * i, 0.7], cut=i == 0)
    return swept


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_all_files_are_written(drawn, tmp_path):
    done = write([drawn], tmp_path / "report")
    found = {str(p.relative_to(tmp_path / "report")) for p in (tmp_path / "report").rglob("*") if p.is_file()}
    figures = {f"figures/{name}.png" for name in NAMES}
    assert found == {"index.html", "report.md", "runs.csv", "comparison.csv"} | figures
    assert done.page == tmp_path / "report/index.html"
    for name in figures:
        with Image.open(tmp_path / "report" / name) as picture:
            assert picture.width > 300 and len(picture.convert("RGB").getcolors(1 << 20)) > 4


def test_only_what_there_is_data_for_is_drawn(make, tmp_path):
    make("kmeans", 0, results={"model": {"cluster/nmi": 0.7}}, primary="cluster/nmi", training_s=None, wall_s=None,
         samples_per_s=None, peak_rss_mb=None)  # fmt: skip
    (tmp_path / "report/figures").mkdir(parents=True)
    (tmp_path / "report/figures/tsne.png").write_bytes(b"of an earlier report")
    write([make.root], tmp_path / "report")
    assert not list((tmp_path / "report/figures").iterdir())


def test_the_page_needs_nothing_else(drawn, tmp_path):
    page = Page(write([drawn], tmp_path).page.read_text())
    linked = [a[k] for _, a in page.tags for k in ("src", "href") if k in a]
    assert len(linked) == 1 + len(NAMES) and all(text.startswith("data:") for text in linked)
    assert not re.search(r"https?://|@import|url\(", (tmp_path / "index.html").read_text())
    assert ("html", {"lang": "en"}) in page.tags
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")


def test_the_page_says_how_its_numbers_came_about(drawn, tmp_path):
    page = Page(write([drawn], tmp_path).page.read_text()).text
    for text in (
        "6 runs (finished 5, waiting 1)", "seeds 0, 1", "86.0 ± 1.4", "+6.0 [", "waiting 1", "supervised",
        "linear@10/accuracy", "4-fold cross-validation", "the method's own predictions", "torch", "2.14.1", "fp32",
        "sslrun -m method=simclr,fixmatch labels=10,40 seed=0,1", "95 % intervals",
    ):  # fmt: skip
        assert text in page, text


def test_commands_repeat_loose_runs_and_seeds_share_one(make, tmp_path):
    for seed in (0, 1):
        make.curves(make("simclr", seed), [0.5])
    make("fixmatch", 0, labels=40)
    text = (write([make.root], tmp_path / "r").page.parent / "report.md").read_text()
    assert "\nsslrun -m method=simclr seed=0,1\n" in text
    assert "\nsslrun method=fixmatch data=digits labels=40 epochs=300 batch_size=64 seed=0  # put together" in text


def test_what_users_named_does_not_act(make, tmp_path):
    bad = "<script>alert(1)</script>\"'|`&"
    make("simclr", 0, data=bad, folder="a/one", settings={"x": bad})
    make(bad, 0, folder="a/two", settings={"x": 1})
    make("simclr", 1, folder="a/<img src=x onerror=alert(2)>", settings={"x": bad})
    make.unfinished("failed", bad, folder="a/three")
    (make("simclr", 2, folder="a/<b>four") / "metrics.json").write_text("{")
    text = write([make.root], tmp_path / "r", rows=["x", "data"]).page.read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1 and bad in page.text
    assert not {"b", "onerror"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    markdown = re.sub("(?s)```.*```", "", (tmp_path / "r/report.md").read_text())
    assert "<script" not in markdown and "<b>" not in markdown


def test_damaged_folders_are_listed_everywhere(drawn, make, tmp_path):
    path = make("simclr", 7)
    (path / "metrics.json").write_text("{")
    done = write([make.root], tmp_path / "r")
    reason = "metrics.json cannot be read"
    assert reason in Page(done.page.read_text()).text and reason in (tmp_path / "r/report.md").read_text()
    assert [r["run"] for r in rows_of(tmp_path / "r/runs.csv") if r["status"] == "damaged"] == [str(path)]


def test_a_report_of_damaged_folders_alone_lists_them(make, tmp_path):
    (make() / "metrics.json").write_text("{")
    assert "Damaged folders" in write([make.root], tmp_path / "r").page.read_text()


def test_runs_csv_has_a_row_a_run_and_every_metric(swept, tmp_path):
    write([swept], tmp_path)
    rows = rows_of(tmp_path / "runs.csv")
    assert len(rows) == 6 and [r["status"] for r in rows].count("waiting") == 1
    first = next(r for r in rows if r["method"] == "simclr" and r["seed"] == "1")
    assert float(first["trained:linear@40/accuracy"]) == pytest.approx(0.88)
    assert (first["torch"], first["precision"], first["training_s"], first["harm"]) == (
        "2.14.1",
        "fp32",
        "11.0",
        "unknown",
    )


def test_comparison_csv_is_in_full_precision(swept, tmp_path):
    write([swept], tmp_path)
    rows = {(r["method"], r["reference"], r["labels"]): r for r in rows_of(tmp_path / "comparison.csv")}
    simclr = rows["simclr", "", "10"]
    assert float(simclr["mean"]) == pytest.approx(0.86) and float(simclr["sd"]) == pytest.approx(0.02 / 2**0.5)
    assert (simclr["seeds"], simclr["pairs"], simclr["baseline"]) == ("0 1", "2", "supervised")
    assert rows["fixmatch", "", "40"]["missing"] == "waiting 1" and rows["fixmatch", "", "40"]["low"] == ""


def test_curves_that_were_cut_off_are_read_as_far_as_they_go(make, tmp_path):
    path = make()
    make.curves(path, [0.5, 0.6, 0.7], cut=True)
    assert validation(path / "metrics.csv")["knn_accuracy"] == {10: 0.5, 20: 0.6}
    with open(path / "metrics.csv", "a") as f:
        f.write("\n4,40,validation/knn_accuracy,0.7e")
    assert validation(path / "metrics.csv")["knn_accuracy"] == {10: 0.5, 20: 0.6}
    assert validation(tmp_path / "none.csv") == {}


def test_curves_are_means_at_the_steps_that_all_seeds_have():
    runs = [{"a": {10: 0.4, 20: 0.6}}, {"a": {10: 0.6, 20: 0.8, 30: 0.9}}, {}]
    assert curve(runs, "a") == [(10, 0.5, pytest.approx(0.02**0.5)), (20, pytest.approx(0.7), pytest.approx(0.02**0.5))]


def test_curves_of_runs_that_are_not_drawn_are_not_read(make, tmp_path, monkeypatch):
    from sslrun.report import draw

    for i in range(30):
        make.curves(make(f"method{i}", 0), [0.5])
    read = []
    monkeypatch.setattr(draw, "validation", lambda path: read.append(path) or {})
    write([make.root], tmp_path / "r")
    assert len(read) == len(draw.COLOURS)


def test_a_picture_that_is_cut_off_is_left_out(drawn, tmp_path):
    for path in drawn.glob("*/figures/tsne.png"):
        path.write_bytes(path.read_bytes()[:200])
    write([drawn], tmp_path)
    assert not (tmp_path / "figures/tsne.png").exists()


def test_a_page_of_a_hundred_runs_is_under_five_megabytes(make, tmp_path):
    for i in range(20):
        for seed in range(5):
            make.curves(make(f"method{i}", seed, 0.5 + 0.01 * i + 0.001 * seed), [0.1 * j / 9 for j in range(10)])
    page = write([make.root], tmp_path / "r").page
    assert page.stat().st_size < 5e6, page.stat().st_size


def test_a_report_of_a_thousand_runs_takes_seconds(make, tmp_path):
    for i in range(1000):
        make(f"method{i % 25}", i // 25, 0.5 + (i % 25) / 100, folder=str(i))
    began = time.perf_counter()
    write([make.root], tmp_path / "r")
    assert time.perf_counter() - began < 20


def test_a_place_that_cannot_be_written_is_said(swept, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write([swept], tmp_path / "file")


def test_curves_and_costs_are_of_one_number_of_labels(make):
    from sslrun.report import compare
    from sslrun.report.series import of_one_budget, series

    for labels in (10, 40, 100):
        make("fixmatch", 0, labels=labels)
        make("simclr", labels)
    chosen = {s.name: of_one_budget(s.runs) for s in series(compare([make.root]))}
    assert [run.metrics["labels"] for run in chosen["fixmatch"][0]] == [40] and chosen["fixmatch"][1] == "40"
    assert len(chosen["simclr"][0]) == 3 and chosen["simclr"][1] == ""


def test_a_folder_named_in_no_encoding_is_reported_all_the_same(make, tmp_path):
    make("simclr", 0, folder="a\udcff")
    assert write([make.root], tmp_path / "r").page.exists()
