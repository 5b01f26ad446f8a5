"""What two checkpoints take on disk of which half the parameters are equal, and how fast they are stored.

    python benchmarks/checkpoints.py            # all of it, about two minutes
    python benchmarks/checkpoints.py layouts    # one of: layouts ours

A fine-tuned transformer whose lower half is frozen: 16 blocks, 256 float32 arrays, 202 MB; most arrays are
small, most bytes are in large ones.  Cutting by content (FastCDC) needs `pip install pyfastcdc`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

import tracklayer
from tracklayer.jax import restore_checkpoint, save_checkpoint

BLOCKS = 16
WIDTH = 512
PAGE = 4096
"""Bytes that a file takes at least on most file systems."""

Cut = Callable[[bytes], Iterator[bytes]]
"""Cuts a file's content into what is kept once."""


def parameters(seed: int) -> dict[str, Any]:
    """Return a model whose lower half is the same for every seed."""
    model: dict[str, Any] = {}
    for block in range(BLOCKS):
        random = np.random.default_rng((0 if block < BLOCKS // 2 else seed, block))

        def weights(*shape: int, random: np.random.Generator = random) -> jax.Array:
            return jnp.asarray(random.standard_normal(shape, np.float32) * 0.02)

        def dense(inputs: int, outputs: int) -> dict[str, jax.Array]:
            return {"kernel": weights(inputs, outputs), "bias": weights(outputs)}

        model[f"block_{block}"] = {
            **{name: dense(WIDTH, WIDTH) for name in ("query", "key", "value", "out")},
            "up": dense(WIDTH, 4 * WIDTH),
            "down": dense(4 * WIDTH, WIDTH),
            **{name: {"scale": weights(WIDTH), "bias": weights(WIDTH)} for name in ("norm_1", "norm_2")},
        }
    return model


CHECKPOINTS = 1, 2


# -- layouts -------------------------------------------------------------------------------------------


def layouts() -> None:
    """Both checkpoints by Orbax, in either layout, kept by whole files or cut by content."""
    row("layout", "kept by", "seconds", "files", "MB in all", "contents", "MB on disk", "MB/s cut")
    for name, packed in [("packed (OCDBT)", True), ("a folder an array", False)]:
        with tempfile.TemporaryDirectory() as folder:
            seconds = [written(Path(folder, str(n)), parameters(n), packed=packed) for n in CHECKPOINTS]
            files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
            whole = sum(path.stat().st_size for path in files)
            for kept_by, cut in cuts():
                kept, speed = kept_once(files, cut)
                row(
                    name,
                    kept_by,
                    f"{sum(seconds) / 2:.2f}",
                    f"{len(files) // 2}",
                    f"{whole / 1e6:.0f}",
                    f"{len(kept)}",
                    f"{on_disk(kept.values()) / 1e6:.0f}",
                    f"{speed:.0f}" if speed else "",
                )
    if importlib.util.find_spec("pyfastcdc") is None:
        print("  cutting by content is not measured: pyfastcdc is not installed")


def written(folder: Path, tree: Any, *, packed: bool) -> float:
    """Have Orbax write a checkpoint; return the seconds that it took."""
    start = time.perf_counter()
    with ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=packed)) as checkpointer:
        checkpointer.save(folder, args=ocp.args.PyTreeSave(tree))
        checkpointer.wait_until_finished()
    return time.perf_counter() - start


def cuts() -> Iterator[tuple[str, Cut | None]]:
    """Yield the ways to keep a content once."""
    yield "whole files", None
    if importlib.util.find_spec("pyfastcdc") is not None:
        for size in (4 << 20, 1 << 20, 1 << 18, 1 << 16):
            yield f"chunks of {size >> 10} KiB", by_content(size)


def by_content(size: int) -> Cut:
    """Return what cuts by content, into chunks of so many bytes on average."""
    from pyfastcdc import FastCDC

    def cut(data: bytes) -> Iterator[bytes]:
        return (
            (bytes(chunk.data) for chunk in FastCDC(size).cut_buf(data)) if len(data) > size else iter([data])
        )

    return cut


def kept_once(files: list[Path], cut: Cut | None) -> tuple[dict[bytes, int], float]:
    """Return the size of each content by its hash, and at how many MB/s they were cut."""
    kept: dict[bytes, int] = {}
    size, seconds = 0, 0.0
    for path in files:
        data = path.read_bytes()
        start = time.perf_counter()
        parts = [data] if cut is None else list(cut(data))
        if len(parts) > 1:
            seconds += time.perf_counter() - start
            size += len(data)
        kept |= {hashlib.sha256(part).digest(): len(part) for part in parts}
    return kept, size / 1e6 / seconds if size else 0.0


# -- tracklayer ----------------------------------------------------------------------------------------


def ours() -> None:
    """Both checkpoints by `save_checkpoint`, and the second one restored, beside Orbax alone and a copy."""
    row("", "", "call s", "stored s", "contents", "MB on disk")
    with tempfile.TemporaryDirectory() as folder:
        with tracklayer.init(dir=folder, backend="sqlite") as run:
            save_checkpoint({"warm": jnp.zeros(2)}, "warm", wait=True)
            before = set(files_of(run.dir))
            for n in CHECKPOINTS:
                tree = jax.block_until_ready(parameters(n))
                start = time.perf_counter()
                artifact = save_checkpoint(tree, step=n)
                called = time.perf_counter() - start
                artifact.wait()
                stored = time.perf_counter() - start
                kept = [path.stat().st_size for path in set(files_of(run.dir)) - before]
                row(
                    f"save_checkpoint {artifact.version}",
                    "",
                    f"{called:.2f}",
                    f"{stored:.2f}",
                    f"{len(kept)}",
                    f"{on_disk(kept) / 1e6:.0f}",
                )
        like = parameters(0)
        start = time.perf_counter()
        jax.block_until_ready(restore_checkpoint(artifact, like))
        row("restore_checkpoint", "", "", f"{time.perf_counter() - start:.2f}", "", "")
        plain = Path(folder, "plain")
        seconds = written(plain, parameters(3), packed=True)
        row("Orbax alone (OCDBT), to one folder", "", "", f"{seconds:.2f}", "", "")
        start = time.perf_counter()
        shutil.copytree(plain, Path(folder, "copy"))
        row("a plain copy of that folder", "", "", f"{time.perf_counter() - start:.2f}", "", "")


def files_of(store: str) -> Iterator[Path]:
    """Yield the files of the contents that a store has."""
    return (path for path in Path(store, "blobs").rglob("*") if path.is_file())


def on_disk(sizes: Any) -> int:
    """Return the bytes that files of these sizes take, in whole pages."""
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def row(what: str, kept_by: str, *figures: str) -> None:
    print(f"  {what:<36} {kept_by:<18}" + "".join(f"{figure:>12}" for figure in figures))


BENCHMARKS = {"layouts": layouts, "ours": ours}


def main() -> None:
    for name in sys.argv[1:] or BENCHMARKS:
        print(BENCHMARKS[name].__doc__)
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
