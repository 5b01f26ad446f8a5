"""What was this run?  Its program, code, packages and machine: captured, snapshot, brought back, compared.

An `Environment` is JSON data with these entries; what is not known, or left out, is absent.

    started_at                  Unix seconds
    program                     relative to git's root, else to the working folder; `-m package.module`
    args                        the program's arguments; secrets are `***`
    cwd, executable             the working folder; Python's path
    os, python                  as `platform.platform()` has it; the version
    host, user, pid
    cpu, cpu_count, cpu_count_logical, memory_bytes
    git                         commit, branch, remote (without credentials), root, dirty
    diff, diff_truncated        text of `git diff HEAD`; true where only its first files are there
    diff_without                changed files that are not in it: those whose names tell of secrets, too
    untracked                   names that git does not know, relative to its root; folders end with a slash
    untracked_code              text of a diff that adds what of it is Python, `requirements*`, `Dockerfile*`
    packages                    version by name
    installed_from              where pip took a package from, if not from an index: pip's own words for it
    jax                         version of jax, jaxlib, flax, optax; backend, process_count, process_index,
                                devices: kind, count, memory_bytes
    gpus                        names of all in the machine
    slurm, kubernetes           which job this is
    variables                   environment variables that steer a program, by an allow list
    code                        `name:v0`, the artifact with the code
    preempted_by                the signal that ended the process; `mark_preempting` where it was called
"""

from __future__ import annotations

from typing import Final

PARTS: Final = frozenset(
    {
        "arguments",
        "code",
        "devices",
        "diff",
        "git",
        "host",
        "jobs",
        "packages",
        "program",
        "untracked",
        "user",
        "variables",
    }
)
"""What may be left out: the words in `TRACKLAYER_OMIT`.

`code` is the snapshot; `devices` are `jax` and `gpus`; with `git` go `diff` and `untracked`, and with either
of these `untracked_code`; `host` is its name, processors and memory; `jobs` are `slurm` and `kubernetes`;
with `program` go `cwd` and `executable`.
"""
