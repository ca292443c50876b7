"""Tables: scikit-learn's bundled ones, and CSV files of the user's own."""

from __future__ import annotations

import csv as csv_format
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Field, UserError
from sslrun.data.source import Part, Source, encode_labels, fingerprint, named

MISSING = {"", "?", "na", "n/a", "nan", "null"}  # compared in lower case
REGRESSION = 50  # a target of more distinct fractions is a quantity, not a class


def breast_cancer() -> Source:
    """Breast cancer Wisconsin, diagnostic (Street et al. 1993): 569 rows of 30 numbers, 2 classes, one part."""
    return _bundled("breast_cancer")


def wine() -> Source:
    """Wine (Aeberhard and Forina 1991): 178 rows of 13 numbers, 3 classes, one part."""
    return _bundled("wine")


def iris() -> Source:
    """Iris (Fisher 1936): 150 rows of 4 numbers, 3 classes, one part."""
    return _bundled("iris")


def csv(
    path: str | None,
    target: str | None = None,
    test_path: str | None = None,
    categorical: Sequence[str] | None = None,
    drop: Sequence[str] | None = None,
    groups: str | None = None,
) -> Source:
    """A CSV file with a header, in UTF-8, separated by comma, semicolon or tab; (N, D) float32, scale 1.

    A column whose entries are all numbers is numeric, NaN where missing; any other column, and those named in
    `categorical`, holds codes from 1 in sorted order, 0 where missing or unseen in training. Empty, ?, NA, N/A, NaN
    and null are missing. `target` names the label column (none: unlabelled; missing: y = -1), `test_path` a second
    file with the same columns, `drop` columns to leave out, `groups` the column of what must stay together.
    Raises UserError for files and columns that are missing, and for a target that is a quantity.
    """
    tables = {"train": _read(path, "data.path")}
    if test_path is not None:
        tables["test"] = _read(test_path, "data.test_path")
    names = list(tables["train"].columns)
    asked = {"target": [target], "groups": [groups], "categorical": categorical or [], "drop": drop or []}
    for key, wanted in asked.items():
        for column in wanted:
            if column is not None and column not in names:
                raise UserError(
                    f"data.{key}={column} is not a column of data.path={path}; its columns are "
                    f"{named(names, 'column', 20)}."
                )
    left_out = {target, groups, *(drop or [])}
    notes, fields, columns = [], [], {part: [] for part in tables}
    for name in names:
        if name in left_out:
            continue
        texts = {part: _column(table, name, path) for part, table in tables.items()}
        if all(text is None for text in texts["train"]):
            notes.append(f"column '{name}' is empty and was left out")
            continue
        made, values = _encode(name, texts, name in (categorical or []), tables, notes)
        fields.append(made)
        for part in tables:
            columns[part].append(values[part])
    if not fields:
        raise UserError(f"data.path={path} has no column left to learn from; it has {named(names, 'column', 20)}.")

    labels = {part: _labels(table, target, path) for part, table in tables.items()}
    coded, classes = encode_labels(labels, f"data.target={target}")
    parts = {part: Part(torch.stack(columns[part], 1), coded[part]) for part in tables}  # (N, D)
    if groups is not None:
        held = _column(tables["train"], groups, path)
        if None in held:
            raise UserError(f"data.groups={groups} is missing in {held.count(None)} rows; every row needs a group.")
        parts["train"].groups = held
    return _source(Path(path).stem, parts["train"], parts.get("test"), classes, tuple(fields), notes)


@dataclass
class Table:
    """The cells of a file by column, as text."""

    columns: dict[str, list[str]]
    path: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def _read(path: str | None, key: str) -> Table:
    if path is None:
        raise UserError(f"{key} is not set; give the CSV file: {key}=table.csv.")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{key}={path} is not a file; give a CSV file with a header.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{key}={path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read ({error.strerror}); check its permissions.") from error
    header = text.split("\n", 1)[0]
    try:
        reader = csv_format.reader(
            text.splitlines(True), delimiter=max(",;\t", key=header.count), skipinitialspace=True, strict=True
        )
        rows = [(reader.line_num, row) for row in reader if row]
    except csv_format.Error as error:
        raise UserError(f"{key}={path} is not CSV ({error}, line {reader.line_num}); mend that line.") from error
    if len(rows) < 2:
        raise UserError(f"{key}={path} has no rows below its header; give a CSV file with a header and data.")
    names = [name.strip() for name in rows[0][1]]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{key}={path} names {named(twice, 'column')} more than once; rename one.")
    for line, row in rows[1:]:
        if len(row) != len(names):
            raise UserError(f"{key}={path} has {len(row)} cells in line {line} where its header has {len(names)}.")
    return Table({name: [row[i].strip() for _, row in rows[1:]] for i, name in enumerate(names)}, str(path))


def _column(table: Table, name: str, path: str) -> list[str | None]:
    """The cells of a column, None where missing."""
    if name not in table.columns:
        raise UserError(f"data.test_path={table.path} lacks the column '{name}' of data.path={path}; add or drop it.")
    return [None if cell.lower() in MISSING else cell for cell in table.columns[name]]


def _number(cell: str) -> float | None:
    """The finite number a cell holds, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def _encode(
    name: str, texts: dict[str, list[str | None]], category: bool, tables: dict[str, Table], notes: list[str]
) -> tuple[Field, dict[str, Tensor]]:
    """The field of a column and its values (N,) float32 in each part; training alone decides kind and codes."""
    seen = {cell for cell in texts["train"] if cell is not None}
    if not category and all(_number(cell) is not None for cell in seen):
        values = {}
        for part, cells in texts.items():
            numbers = [math.nan if cell is None else _number(cell) for cell in cells]
            if None in numbers:
                row = numbers.index(None)
                raise UserError(
                    f"data.test_path={tables[part].path}: column '{name}' holds numbers in training but "
                    f"'{cells[row]}' in row {row + 1}; mend it or set data.categorical=[{name}]."
                )
            values[part] = torch.tensor(numbers, dtype=torch.float32)
        return Field(name), values
    if len(seen) == len(texts["train"]) and len(seen) > REGRESSION:
        notes.append(
            f"column '{name}' differs in every row; if it is an identifier, leave it out by data.drop=[{name}]"
        )
    code = {cell: i for i, cell in enumerate(sorted(seen), 1)}
    unseen = [cell for cell in texts.get("test", []) if cell is not None and cell not in code]
    if unseen:
        notes.append(f"column '{name}' has {len(unseen)} test values unseen in training, coded as missing")
    codes = {part: torch.tensor([float(code.get(cell, 0)) for cell in cells]) for part, cells in texts.items()}
    return Field(name, "categorical", len(code) + 1, tuple(code)), codes


def _labels(table: Table, target: str | None, path: str) -> list:
    """Labels as numbers where all are, else as text; None where missing."""
    if target is None or (target not in table.columns):
        return [None] * len(table)
    cells = _column(table, target, path)
    numbers = [None if cell is None else _number(cell) for cell in cells]
    if any((cell is None) != (number is None) for cell, number in zip(cells, numbers, strict=True)):
        return cells
    distinct = {number for number in numbers if number is not None}
    if len(distinct) > REGRESSION and any(number != int(number) for number in distinct):
        raise UserError(
            f"data.target={target} has {len(distinct)} different fractions, which is a quantity and not a class; "
            "name a column of classes, or null for none."
        )
    return [None if n is None else int(n) if n == int(n) else n for n in numbers]


def _bundled(name: str) -> Source:
    from sklearn import datasets

    bundle = getattr(datasets, f"load_{name}")()
    fields = tuple(Field(str(column)) for column in bundle.feature_names)
    train = Part(torch.from_numpy(bundle.data.astype(np.float32)), torch.from_numpy(bundle.target).long())
    return _source(name, train, None, tuple(map(str, bundle.target_names)), fields, [])


def _source(
    name: str, train: Part, test: Part | None, classes: tuple[str, ...], fields: tuple[Field, ...], notes: list[str]
) -> Source:
    spec = DataSpec(name, "table", (len(fields),), len(classes), classes, fields=fields)
    held = [tensor for part in (train, test) if part for tensor in (part.x, part.y)]
    mark = fingerprint(classes, fields, *held)
    return Source(spec, train, test=test, notes=notes, fingerprint=mark)
