"""`sslrun report [DIR...]`: compares runs on a page, in Markdown, CSV and figures."""

from __future__ import annotations

from pathlib import Path

from sslrun.errors import UserError
from sslrun.explain import nearest
from sslrun.record.summary import console
from sslrun.report import table, write
from sslrun.verbs import USAGE

FLAGS = ("--out", "--rows", "--columns", "--where", "--metric", "--baseline")


def main(argv: list[str]) -> None:
    folders, given = parse(argv)
    out = given["--out"][-1] if given["--out"] else (folders[0] / "report" if len(folders) == 1 else Path("report"))
    done = write(
        folders or [Path("outputs")],
        Path(out),
        rows=_keys(given["--rows"]),
        columns=_keys(given["--columns"]),
        where=[_pair(text) for text in given["--where"]],
        metric=(given["--metric"] or [None])[-1],
        baseline=(given["--baseline"] or [None])[-1],
    )
    out = console()
    out.print(table(done.comparison))
    out.print(f"\n{done.page}", soft_wrap=True, markup=False)


def parse(argv: list[str]) -> tuple[list[Path], dict[str, list[str]]]:
    """Folders, and the values of each flag, written `--flag value` or `--flag=value`.

    Raises:
        UserError: an unknown flag, or one without its value.
    """
    folders: list[Path] = []
    given: dict[str, list[str]] = {flag: [] for flag in FLAGS}
    rest = [a for a in argv if a != "traceback=true"]
    while rest:
        flag, equals, text = rest.pop(0).partition("=")
        if not flag.startswith("--"):
            if equals:
                raise UserError(f"report does not know {flag}={text}; --where {flag}={text} chooses runs by a setting.")
            folders.append(Path(flag))
            continue
        if flag not in FLAGS:
            raise UserError(f"report does not know {flag}; {nearest(flag, FLAGS)}{USAGE['report']}.")
        if not equals:
            text = rest.pop(0) if rest and not rest[0].startswith("--") else ""
        if not text:
            raise UserError(f"{flag} needs a value: {USAGE['report']}.")
        given[flag].append(text)
    return folders, given


def _keys(values: list[str]) -> list[str]:
    return [key for text in values for key in text.split(",") if key]


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals or not value:
        raise UserError(f"--where {text} is no KEY=VALUE; --where data=digits, for instance.")
    return key, value
