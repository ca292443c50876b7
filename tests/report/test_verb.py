"""`sslrun report` on the command line."""

import subprocess
import sys

import pytest

SAID = {
    ("--colums", "labels"): "report does not know --colums; did you mean --columns ",
    ("--rows",): "--rows needs a value",
    ("--where", "digits"): "--where digits is no KEY=VALUE",
    ("data=digits",): "--where data=digits chooses runs by a setting",
    ("nowhere",): "nowhere is no folder",
    ("--rows", "metod"): "did you mean method",
}


def test_a_report_of_a_folder_lies_in_it(command, swept):
    said = command("report", swept)
    assert said.status == 0, said.err
    assert "86.0 ± 1.4" in said.out and said.out.rstrip().endswith("two/report/index.html")
    assert (swept / "report/index.html").exists()


def test_without_a_folder_it_is_outputs(command, swept, own_place):
    assert command("report").status == 0 and (own_place / "report/index.html").exists()


def test_flags(command, swept, own_place):
    said = command(
        "report", swept, "--out=there", "--rows", "labels", "--columns", "method",
        "--where", "method=simclr", "--where", "method=fixmatch", "--baseline=raw", "--metric", "linear@40/accuracy",
    )  # fmt: skip
    assert said.status == 0, said.err
    assert "linear@40/accuracy" in said.out and "against raw" in said.out and (own_place / "there/report.md").exists()


@pytest.mark.parametrize("argv", SAID)
def test_a_mistake_is_one_sentence(command, swept, argv):
    folders = () if argv == ("nowhere",) else (swept,)
    said = command("report", *folders, *argv)
    assert said.status == 1 and SAID[argv] in said.err and len(said.err.splitlines()) == 1


def test_nothing_to_report_is_said(command, own_place):
    (own_place / "outputs").mkdir()
    said = command("report")
    assert said.status == 1 and "outputs holds no runs; run an experiment first" in said.err


def test_a_second_report_does_not_read_the_first(command, swept):
    assert command("report", swept).out == command("report", swept).out


def test_it_loads_no_torch(swept, tmp_path):
    code = "import sys; from sslrun.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "report", str(swept), "--out", str(tmp_path / "r")], check=True)


def test_runs_as_they_really_are(command, trained, tmp_path):
    said = command(
        "report", *(trained(name) for name in ("simclr", "supervised", "kmeans", "table")), "--out", tmp_path / "r"
    )
    assert said.status == 0, said.err
    for text in ("simclr", "supervised", "kmeans", "denoising_autoencoder", "digits", "wine", "knn/accuracy"):
        assert text in said.out, text
    page = (tmp_path / "r/index.html").read_text()
    assert "data:image/png" in page and "Damaged" not in page
