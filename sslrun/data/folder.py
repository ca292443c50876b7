"""Folders of pictures: which files there are, what form they take, and how they are decoded."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from sslrun.contracts import DataSpec, UserError
from sslrun.data.decode import Reader, common_form
from sslrun.data.source import Images, Part, Source, check_all, decode_all, encode_labels, fingerprint, named

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".npy"}
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
UNLABELLED = ("unlabelled", "unlabeled")


def image_folder(
    root: str | None,
    image_size: int | Sequence[int] | None = None,
    channels: int | None = None,
    labelled: bool = True,
    groups: str | None = None,
    on_error: str = "skip",
    memory_gb: float = 4.0,
    workers: int | None = None,
) -> Source:
    """Pictures under `root`, in any of these layouts; hidden files and files that are no pictures are ignored.

    Parts: a folder `train`, and beside it `val` (`valid`, `validation`), `test` and `unlabelled` (`unlabeled`; it
    follows the training part); without `train` the whole root is the training part. Within a part each folder is a
    class, of all pictures at any depth below it; pictures directly in the part, or in a folder `unlabelled`, have no
    label (y = -1). A root with pictures only, or with one class only, is unlabelled, as is any with `labelled=false`.

    Pictures become (C, H, W). `image_size=null` keeps a size that all share up to 128 x 128; otherwise the short side
    is resized and the middle square cut, of the median short side to a multiple of 32, 224 at most. `image_size` is the
    side of the square, or (height, width). `channels=null` is 1 where all are grey, 3 otherwise, or what `.npy` files
    have; alpha is laid on white. 16-bit files give int32 with scale 65535. All is held in memory up to `memory_gb`
    (10^9 bytes), else decoded by `workers` threads.

    `groups` is a CSV file with columns file and group, or a regular expression with one group, searched in the path
    below `root`. Raises UserError for anything that leaves no data, an ambiguous layout, and, with `on_error=raise`,
    a file that cannot be read.
    """
    if on_error not in ("skip", "raise"):
        raise UserError(f"data.on_error={on_error} is neither skip nor raise.")
    notes: list[str] = []
    base, found = _layout(root, labelled, notes)
    if len({label for samples in found.values() for _, label in samples} - {None}) == 1 and labelled:
        notes.append(f"all labelled pictures of {root} are in one folder, so they count as unlabelled")
        found = {part: [(path, None) for path, _ in samples] for part, samples in found.items()}
    form = common_form([path for samples in found.values() for path, _ in samples], root, image_size, channels)

    count = sum(map(len, found.values()))
    in_memory = count * form.size <= memory_gb * 1e9
    state = {path: _state(path) for samples in found.values() for path, _ in samples}
    mark = fingerprint(sorted((_name(path, base), size) for path, (size, _) in state.items()))
    parts, labels, failed = {}, {}, []
    for part, samples in found.items():
        paths = [path for path, _ in samples]
        state_of = [(path, *state[path]) for path in paths]
        images = Images(Reader(paths, form), len(samples), form.shape, form.dtype, workers)
        x, bad = decode_all(images, on_error) if in_memory else (images, check_all(images, on_error, state_of))
        good = [i for i in range(len(samples)) if i not in bad]
        if bad:
            failed += [_name(samples[i][0], base) for i in bad]
            kept = Reader([paths[i] for i in good], form)
            x = x[torch.tensor(good).long()] if in_memory else Images(kept, len(good), form.shape, form.dtype, workers)
        if not good:
            raise UserError(f"data.root={root}: none of the {len(samples)} pictures of the {part} part could be read, "
                            f"the first because {next(iter(bad.values()))}.")  # fmt: skip
        if lost := {label for _, label in samples} - {samples[i][1] for i in good} - {None}:
            raise UserError(f"data.root={root}: {named(sorted(lost), 'class')} of the {part} part has no picture that "
                            "can be read; replace the files or remove the folder.")  # fmt: skip
        names = [_name(samples[i][0], base) for i in good]
        labels[part] = [samples[i][1] for i in good]
        parts[part] = Part(x, torch.empty(0), _groups(groups, names, base), names)
    if failed:
        shown = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
        notes.append(f"{len(failed)} of {count} files could not be read and were skipped: {shown}")
    coded, classes = encode_labels(labels, f"data.root={root}")
    for part in parts:
        parts[part].y = coded[part]
    for label, times in sorted(Counter(label for label in labels["train"] if label is not None).items()):
        if times == 1:
            notes.append(f"class '{label}' has a single training picture")
    spec = DataSpec(base.name, "image", form.shape, len(classes), classes, scale=form.scale)
    return Source(spec, parts["train"], parts.get("val"), parts.get("test"), notes, mark)


# ---- which files there are -------------------------------------------------------------------------------------------


def _layout(root: str | None, labelled: bool, notes: list[str]) -> tuple[Path, dict[str, list]]:
    """The absolute root, and {part: [(path, class or None)]} sorted by path, as `image_folder` says."""
    if root is None:
        raise UserError("data.root is not set; give the folder of pictures: data.root=DIR.")
    base = Path(os.path.abspath(Path(root).expanduser()))
    if not base.is_dir():
        what = "a file, not a folder (unpack archives first)" if base.is_file() else "not there"
        raise UserError(f"data.root={root} is {what}; give a folder of pictures.")
    folders = {entry.name: entry.path for entry in _entries(base) if entry.is_dir()}
    named_parts = {}
    for name, path in folders.items():
        part = PARTS.get(name.lower())
        if part in named_parts:
            raise UserError(f"data.root={root} has two folders for the {part} part: {named_parts[part]}, {path}.")
        if part:
            named_parts[part] = path
    others = [n for n in folders if n.lower() not in (*PARTS, *UNLABELLED) and _pictures(folders[n])]
    # "train" is a part unless it lies, without folders of its own, among other folders of pictures: then it is a class
    nested = "train" in named_parts and any(entry.is_dir() for entry in _entries(named_parts["train"]))
    if "train" not in named_parts and named_parts:
        raise UserError(f"data.root={root} has a {next(iter(named_parts))} folder but no train folder; name it train.")
    if named_parts and (nested or len(named_parts) > 1 or not others):
        found = {part: _classes(path, labelled, root, notes) for part, path in named_parts.items()}
        for name in folders:
            if name.lower() in UNLABELLED:
                found["train"] += [(path, None) for path in _pictures(folders[name])]
        if others:
            notes.append(f"{named(others, 'folder')} beside train was ignored")
        found = {part: samples for part, samples in found.items() if samples or part == "train"}
    else:
        found = {"train": _classes(base, labelled, root, notes)}
    if not found["train"]:
        raise UserError(
            f"data.root={root} has no pictures to train on; it needs files such as {', '.join(sorted(SUFFIXES)[:5])} "
            "in class folders, or with no folders at all."
        )
    for part, samples in found.items():
        if part != "train" and found["train"] and labelled and all(label is None for _, label in samples):
            notes.append(f"the {part} part has no labels")
    return base, found


def _classes(part: str | Path, labelled: bool, root: str, notes: list[str]) -> list[tuple[str, str | None]]:
    samples: list[tuple[str, str | None]] = []
    for entry in _entries(part):
        if not entry.is_dir():
            samples += [(entry.path, None)] * _is_picture(entry.name)
            continue
        inside = _pictures(entry.path)
        if not inside and labelled and not _files(entry.path):
            raise UserError(f"data.root={root}: the class folder {entry.path} is empty; fill it or remove it.")
        if not inside:
            notes.append(f"folder '{entry.name}' has no pictures and was ignored")
        free = not labelled or entry.name.lower() in UNLABELLED
        samples += [(path, None if free else entry.name) for path in inside]
    return sorted(samples, key=lambda sample: sample[0])


def _entries(folder: str | Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith((".", "__MACOSX"))), key=lambda e: e.name)
    except OSError as error:
        raise UserError(f"data.root: {folder} cannot be listed ({error.strerror}); check its permissions.") from error


def _files(folder: str) -> list[str]:
    """Every file below a folder, each linked folder once."""
    found, seen, todo = [], set(), [folder]
    while todo:
        here = todo.pop()
        if (real := os.path.realpath(here)) in seen:
            continue
        seen.add(real)
        for entry in _entries(here):
            (todo if entry.is_dir() else found).append(entry.path)
    return sorted(found)


def _pictures(folder: str) -> list[str]:
    return [path for path in _files(folder) if _is_picture(path)]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _state(path: str) -> tuple[int, int]:
    """Bytes and time of the last change."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1  # a broken link: decoding will tell
    return found.st_size, found.st_mtime_ns


def _name(path: str, base: Path) -> str:
    return os.path.relpath(path, base).replace(os.sep, "/")


def _groups(groups: str | None, names: list[str], base: Path) -> list[str] | None:
    if groups is None:
        return None
    if groups.lower().endswith(".csv"):
        file = next((f for f in (Path(groups).expanduser(), base / groups) if f.is_file()), None)
        if file is None:
            raise UserError(f"data.groups={groups} is not there, nor in data.root={base}; give a CSV of file,group.")
        try:
            with open(file, newline="", encoding="utf-8-sig") as stream:
                table = {row["file"].replace("\\", "/"): row["group"] for row in csv.DictReader(stream)}
        except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"data.groups={groups} must be UTF-8 CSV with the columns file and group.") from error
        held = [table.get(name, table.get(name.rsplit("/", 1)[-1])) for name in names]
    else:
        try:
            pattern = re.compile(groups)
        except re.error as error:
            raise UserError(f"data.groups={groups} is not a regular expression ({error}), nor a .csv file.") from error
        if pattern.groups != 1:
            raise UserError(f"data.groups={groups} must have one group in parentheses, such as '(patient\\d+)'.")
        held = [match.group(1) if (match := pattern.search(name)) else None for name in names]
    for name, group in zip(names, held, strict=True):
        if not group:
            raise UserError(f"data.groups={groups} gives no group for {name}; every picture needs one.")
    return held
