"""The grid of methods, and one of them in full."""

from sslrun.catalogue import methods


def test_the_grid_names_every_method(command):
    said = command("methods")
    assert said.status == 0
    assert {line.split()[0] for line in said.out.splitlines()[1:] if line and line[0] != " "} == set(methods())


def test_one_method_with_its_keys_defaults_comments_and_paper(command):
    out = command("methods", "simclr").out
    for word in ("arXiv:2002.05709", "method.simclr.temperature", "0.2", "the paper has .5 at batch 4096", "reads"):
        assert word in out
    assert "mu=4" in command("methods", "fixmatch").out  # what it changes beyond its own keys


def test_an_unknown_name(command):
    said = command("methods", "rotatoin")
    assert said.status == 1 and "did you mean rotation" in said.err
