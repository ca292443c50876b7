"""A run folder: whole files or none, one owner, and what it says about itself."""

import os
import threading
import time

import pytest

from sslrun.contracts import UserError
from sslrun.record.folder import RunFolder, exclusive, open_run, write_atomically


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "a.json"
    write_atomically(path, b"old")

    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_one_owner_at_a_time(tmp_path):
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    first.claim()
    first.set_status("running", step=3)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        second.claim()
    first.release()
    second.claim()
    second.set_status("finished")
    assert second.status()["step"] == 3 and second.status()["status"] == "finished"
    second.release()


def test_a_folder_that_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not a run folder"):
        open_run("nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        RunFolder(tmp_path / "file").claim()
    (tmp_path / "outputs/m/d/now").mkdir(parents=True)
    (tmp_path / "outputs/m/d/now/config.yaml").write_text("{}")
    with pytest.raises(UserError, match="runs here: outputs/m/d/now"):
        open_run("nowhere")


def test_a_status_that_was_cut_short_is_no_status(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "status.json").write_text('{"status": "run')
    assert folder.status() == {}


def test_one_works_while_the_others_wait(tmp_path):
    order = []

    def second():
        with exclusive(tmp_path / "some/lock"):
            order.append("second")

    with exclusive(tmp_path / "some/lock"):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.3)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
