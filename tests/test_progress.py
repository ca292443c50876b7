import time

from sslrun import progress as module
from sslrun.progress import progress, working


def test_progress_passes_everything_on():
    assert list(progress(iter(range(5)), 5, "reading")) == [0, 1, 2, 3, 4]


def test_long_lists_count_down_where_no_terminal_shows_a_bar(monkeypatch, capfd):
    monkeypatch.setattr(module, "SILENCE", 0.0)
    assert sum(progress((time.sleep(0.01) or i for i in range(20)), 20, "reading")) == 190
    said = capfd.readouterr().err.splitlines()
    assert said == [f"reading: {n} of 20, about 1 s left" for n in (4, 8, 12, 16)]


def test_work_is_named_once_it_takes_long(monkeypatch, capfd):
    monkeypatch.setattr(module, "SILENCE", 0.05)
    with working("judging raw by graph"):
        time.sleep(0.3)
    with working("judging raw by knn"):
        pass
    time.sleep(0.1)
    assert capfd.readouterr().err == "judging raw by graph ...\n"


def test_work_that_took_long_before_is_named_at_once(capfd):
    with working("judging raw by graph", expected=150):
        time.sleep(0.1)
    with working("judging raw by knn", expected=2):
        time.sleep(0.1)
    assert capfd.readouterr().err == "judging raw by graph: about 2 min\n"
