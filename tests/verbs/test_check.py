"""What `sslrun check` says of methods that are right, wrong and broken, and of names that are none."""

import math
import re
from pathlib import Path

import pytest

from sslrun.catalogue import locate, methods
from sslrun.check.byhand import held_against
from sslrun.check.worlds import WORLDS
from sslrun.methods.semi.fixmatch import FixMatch
from sslrun.nn.example import Example

YAML = "# @package _global_\nmethod:\n  {name}:\n    _target_: own_methods.{kind}\n"
OWN = '''
from sslrun.contracts import Objective
from sslrun.methods.semi.fixmatch import FixMatch


class Kept(FixMatch):
    """Divides by the rows that it kept."""

    def total(self, x, y, loss_u, mask_rate, **told):
        return super().total(x, y, loss_u / mask_rate, mask_rate=mask_rate, **told)


class Broken(Objective):
    """Forgets what it wanted to return."""

    modalities = ("table",)

    def forward(self, encoder, batch):
        return {"loss": encoder(batch["all"]["x"]).sum() * missing}


class Odd(Objective):
    """Reads what nobody has."""

    modalities = ("smell",)
'''


@pytest.fixture
def own(own_place):
    (own_place / "conf/method").mkdir(parents=True)
    for kind in ("Kept", "Broken", "Odd"):
        (own_place / f"conf/method/{kind.lower()}.yaml").write_text(YAML.format(name=kind.lower(), kind=kind))
    (own_place / "own_methods.py").write_text(OWN)
    return "--config-dir=conf"


def lines(said, method):
    """The table's lines of a method, as words."""
    rows = [line.split() for line in said.out.splitlines()]
    first = next(i for i, row in enumerate(rows) if row[:1] == [method])
    end = next((i for i in range(first + 1, len(rows)) if rows[i][1:2] and rows[i][1].startswith("(")), len(rows))
    return [" ".join(row) for row in rows[first:end]]


def test_a_method_that_is_right(command, own_place):
    said = command("check", "method=fixmatch", "method=[kmeans]")
    assert said.status == 0 and not said.err
    assert "The sum over confident rows" in said.out and "10 checks of 2 methods hold" in said.out
    assert sum(" ok" in line for line in lines(said, "fixmatch")) == 10
    assert "not checked: no example computed by hand" in lines(said, "kmeans")[0]
    assert "not checked: nothing learns by gradients" in lines(said, "kmeans")[1]
    assert not list(own_place.iterdir())


def test_one_that_is_wrong_and_one_that_breaks(command, own):
    said = command("check", "method=kept,broken,odd", own)
    assert said.status == 1
    assert "6 of 9 checks failed, in broken, kept; the table says why." in said.err and "Traceback" not in said.err
    kept = " ".join(lines(said, "kept"))  # where it keeps none, it divides 0 by 0
    assert "loss is 4.14703, by hand 2.64916" in kept and "the gradient of kept loss is not finite" in kept
    assert "NameError: name 'missing' is not defined" in " ".join(lines(said, "broken"))
    assert "not checked: no small data of this modality is bundled" in " ".join(lines(said, "odd"))


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("method=fixmtch", "method=fixmtch is unknown; did you mean fixmatch"),
        ("fixmatch", "check takes method=NAME, not fixmatch."),
        ("data=digits", "check takes method=NAME, not data=digits."),
        ("method=", "check takes method=NAME, not method=."),
    ],
)
def test_what_is_no_method_is_refused(command, argument, words):
    said = command("check", argument)
    assert said.status == 1 and words in said.err and not said.out


def test_every_modality_has_a_small_world():
    assert {m for entry in methods().values() for m in locate(entry["_target_"]).modalities} <= set(WORLDS)


def test_every_semi_supervised_method_with_a_loss_has_examples():
    for name, entry in methods().items():
        kind = locate(entry["_target_"])
        if ".semi." in entry["_target_"] and kind.trains:
            assert kind.examples(), name


def test_the_documentations_example_holds():
    (code,) = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/check.md").read_text(), re.S)
    names = {"Example": Example, "math": math}
    exec(code, names)
    (example,) = names["examples"]()
    assert held_against(FixMatch, example) == {"numbers": None, "gradient": None}
