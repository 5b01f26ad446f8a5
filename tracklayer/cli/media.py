"""`tracklayer media`: images, tables, sound and all else that is no number, as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracklayer.cli import failures, output
from tracklayer.cli.files import files_of, folder_of
from tracklayer.cli.finding import find_keys, find_run
from tracklayer.cli.options import dir_option
from tracklayer.errors import CorruptRunError
from tracklayer.media.base import Media
from tracklayer.values import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracklayer.reading import MediaPoint, RunReader
    from tracklayer.values import Histogram, Text


@click.command("media")
@click.argument("ref", metavar="RUN")
@click.argument("wanted", nargs=-1, metavar="[KEY]...")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The folder to write to; it is made if it is not there.",
)
@dir_option
@click.pass_context
def command(
    context: click.Context, *, ref: str, wanted: tuple[str, ...], out: Path, folder: Path | None
) -> None:
    """Write a run's media out as files.

    All of them, or those of each KEY, which may be a pattern such as 'val/*'.  Step 12 of the key
    val/images is FOLDER/val/images/12.png, or 12_0.png, 12_1.png and so on where it holds several;
    a key with other characters than a-z, 0-9, _ and - gets a folder whose name ends in a hash.  A
    table becomes CSV, a chart CSV and a picture, a histogram JSON; captions, boxes and the like stand
    in a JSON file beside.

    No file is overwritten: one that is there with the same content is left, and one with other
    content is an error.  The exit code is 0 only if everything is there.
    """
    from tracklayer.registry import open_store

    reader = find_run(open_store(folder), ref)
    listed = [entry["key"] for entry in listing(reader)]
    keys = find_keys(listed, wanted, f"run {reader.id} has no media") if wanted else listed
    if not keys:
        output.echo(f"run {reader.id} has no media")
        return
    counts = _write_all(reader, keys, out)
    output.table(
        ("key", "files", "bytes", "folder"),
        [(key, str(of.files), str(of.bytes), str(out / folder_of(key))) for key, of in counts.items()],
        numbers=("files", "bytes"),
    )
    output.echo()
    output.echo(_total(list(counts.values()), out))
    if any(of.failed for of in counts.values()):
        context.exit(failures.FAILED)


def listing(reader: RunReader) -> list[dict[str, Any]]:
    """Describe what a run has under each key that is not of numbers alone, in the order of first steps."""
    found: dict[str, list[MediaPoint]] = {}
    for point in reader.media():
        found.setdefault(point.key, []).append(point)
    return [
        {
            "key": key,
            "kinds": sorted({kind_of(point.value) for point in points}),
            "steps": len(points),
            "first_step": points[0].step,
            "last_step": points[-1].step,
            "bytes": sum(sizes(points).values()),
            "caption": _caption(points[-1].value),
        }
        for key, points in found.items()
    ]


def sizes(points: Iterable[MediaPoint]) -> dict[str, int]:
    """Return the size of each file, in bytes, by SHA-256: what several values share counts once."""
    return {
        sha256: content.size
        for point in points
        if isinstance(point.value, Media)
        for sha256, content in point.value.encoded.contents.items()
    }


def _caption(value: Text | Histogram | Media) -> str | None:
    if not isinstance(value, Media):
        return None
    data = value.encoded.data
    captions = [item.get("caption") for item in data.get("items", [data])]
    return ", ".join(caption for caption in captions if caption) or None


@dataclass
class _Count:
    """What became of a key's files."""

    files: int = 0
    bytes: int = 0
    there: int = 0
    failed: int = 0


def _write_all(reader: RunReader, keys: Sequence[str], out: Path) -> dict[str, _Count]:
    """Write the files of all steps of the keys, in one pass; say which cannot be written, and why."""
    counts = {key: _Count() for key in keys}
    folders = {key: _made_folder(out, key) for key in keys}
    for point in reader.media():
        if point.key in counts:
            _write_point(point, folders[point.key], counts[point.key])
    return counts


def _made_folder(out: Path, key: str) -> Path:
    """Make a key's folder.

    Raises:
        FileExistsError: a link there leads elsewhere.
    """
    folder = out / folder_of(key)
    if not folder.resolve().is_relative_to(out.resolve()):
        msg = f"cannot write to {folder}: a link there leads out of {out}"
        raise FileExistsError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_point(point: MediaPoint, folder: Path, count: _Count) -> None:
    """Write the files of one step of a key; say which cannot be written, and why."""

    def tell(error: Exception) -> None:
        count.failed += 1
        failures.tell_line(f"{output.printable(point.key)} at step {point.step}: {failures.describe(error)}")

    try:
        for file in files_of(point.value, str(point.step)):
            try:
                data = file.read()
                is_new = _write(folder / file.name, data)
            except (CorruptRunError, FileExistsError) as error:
                tell(error)
            else:
                count.files += 1
                count.bytes += len(data)
                count.there += not is_new
    except CorruptRunError as error:
        tell(error)


def _write(path: Path, data: bytes) -> bool:
    """Write a new file; return False where it is there with the same content.

    Raises:
        FileExistsError: it is there with other content.
    """
    try:
        file = path.open("xb")
    except FileExistsError:
        if path.is_file() and path.read_bytes() == data:
            return False
        msg = f"{path} is there already, with other content"
        raise FileExistsError(msg) from None
    try:
        with file:
            file.write(data)
    except BaseException:
        path.unlink(missing_ok=True)  # part of a file would be taken for all of it
        raise
    return True


def _total(counts: Sequence[_Count], out: Path) -> str:
    files, size = sum(count.files for count in counts), sum(count.bytes for count in counts)
    there, failed = sum(count.there for count in counts), sum(count.failed for count in counts)
    parts = [f"{'1 file' if files == 1 else f'{files} files'}, {size} bytes, in {output.printable(str(out))}"]
    if there:
        parts.append(f"{there} there already")
    if failed:
        parts.append(f"{failed} failed")
    return "; ".join(parts)
