"""A fourth backend, as somebody else would write it: one line of JSON for each call."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from tracklayer.errors import RunExistsError, RunNotFoundError
from tracklayer.protocol import Backend


def path_of(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.jsonl"


class JsonLinesRun:
    def __init__(self, info, file):
        self.info = info
        self._file = file

    def _write(self, call, **fields):
        self._file.write(json.dumps({"call": call, **fields}) + "\n")

    def log(self, values, *, step, time):
        plain = {k: v if isinstance(v, (int, float)) else v.to_json() for k, v in values.items()}
        self._write("log", values=plain, step=step, time=time)

    def update_config(self, config):
        self._write("config", values=dict(config))

    def update_summary(self, summary):
        self._write("summary", values=dict(summary))

    def log_artifact(self, artifact):
        files = {f.path: f.reference or Path(f.source).read_bytes().hex() for f in artifact.files}
        self._write("artifact", name=artifact.name, aliases=artifact.aliases, files=files)

    def commit(self):
        self._file.flush()

    def finish(self, status):
        self._write("finish", **asdict(status))
        self._file.close()


def open_run(info, resume, settings):
    path = path_of(settings.dir, info.id)
    if path.exists() and resume in {None, "never"}:
        raise RunExistsError(f"run {info.id!r} is in {path} already")
    if not path.exists() and resume == "must":
        raise RunNotFoundError(f"no run {info.id!r}: {path} is not there")
    return JsonLinesRun(replace(info, resumed=path.exists()), path.open("a", encoding="utf-8"))


backend = Backend(name="jsonl", summary="one line of JSON for each call", open=open_run)
