"""What code written for wandb finds here, name by name: the same, a difference, or what comes nearest.

The names are those of wandb 0.31.  The errors about what is missing are made from this table, and a test
holds `docs/wandb.md` to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar, final

from tracklayer.errors import NotSupportedError, UsageError

_Class = TypeVar("_Class")


class Name(NamedTuple):
    """One of wandb's names.

    Attributes:
        note: what differs; of what is not here, what to do instead.
        is_here: whether tracklayer has it.
        harmless: the values with which an argument that is not here asks for nothing.
    """

    note: str
    is_here: bool
    harmless: tuple[object, ...] = (None, False)


def _here(note: str = "") -> Name:
    return Name(note, is_here=True)


def _not(note: str, harmless: tuple[object, ...] = (None, False)) -> Name:
    return Name(note, is_here=False, harmless=harmless)


_NO_REGISTRY: Final = "there is no registry: an alias says which version is which"
_NO_TAGS: Final = "an alias names one version; what else there is to say goes into the `metadata`"
_AT_LOG: Final = "the content is that at `log_artifact`, whatever is said here"
_NO_CACHE: Final = "leave it out: there is no cache, the store has each content once"
_WHOLE: Final = "an artifact is logged whole; equal content is kept once"
_ASK_SERVER: Final = "it is about W&B's server: `wandb.Api` has it"
_NOTHING_TO_DO: Final = "leave it out: there is nothing to do here"
_LOG_YOURSELF: Final = "log its values with `run.log`, where you have them"
_ONE_RECORD: Final = 'record into both at once: `backend="tensorboard,wandb"`'
_NO_PROMPT: Final = "leave it out: nothing is asked on a terminal"
_READ_WHOLE: Final = "how W&B's server is read; a store is read whole, and the result is the same"
_REWIND: Final = 'continue the run with `resume="must"`: what is logged again replaces what was there'

_PREEMPTING: Final = 'signals record themselves; `init(resume="auto")` continues the run'

NAMES: Final[Mapping[str, Mapping[str, Name]]] = {
    "wandb": {
        "__version__": _here("tracklayer's own"),
        "init": _here("`project` is the first positional argument; its arguments are below"),
        "finish": _here(),
        "log": _here("refuses None and bare arrays: wrap these, in a `Histogram` for example"),
        "config": _here("an entry may be changed at any time, as with wandb's `allow_val_change=True`"),
        "summary": _here("entries cannot be removed"),
        "run": _here(),
        "login": _here("never asks, never stores a key, and is not needed without W&B"),
        "define_metric": _here("also takes `goal`; `summary` takes a list, too; returns nothing"),
        "log_artifact": _here("returns when the content is stored, with its version; see `wait` below"),
        "use_artifact": _here("also offline: versions lie in the store"),
        "log_model": _here("returns the artifact"),
        "use_model": _here("also offline"),
        "save": _here("the files are an artifact of the run, of type `files`"),
        "alert": _here(
            "recorded as text under `alert/<title>`, said on stderr, and told by W&B where that records"
        ),
        "watch": _here("for Flax NNX; logs the parameters, since JAX has no hooks on gradients"),
        "unwatch": _here(),
        "Settings": _here("the fields are below"),
        "Api": _here("reads the store on this disk; its methods are below"),
        "AlertLevel": _here(),
        "Artifact": _here("its methods are below"),
        "Histogram": _here("a jax array is counted on its device"),
        "Image": _here("floats are scaled as its docstring says; wandb casts them to bytes"),
        "Audio": _here(),
        "Video": _here(),
        "Html": _here(),
        "Plotly": _here(),
        "Object3D": _here("points and files; no mapping of points, boxes and vectors"),
        "Table": _here('no `log_mode="INCREMENTAL"`'),
        "plot": _here(),
        "plot_table": _here(),
        "Run": _here("what a backend implements; what `init` returns is an `ActiveRun`"),
        "errors": _here("tracklayer's own tree, below `TracklayerError`"),
        "sweep": _here("no server: a file in the store, which any number of agents share"),
        "agent": _here("calls the function in its own thread"),
        "controller": _not("none is needed: each agent chooses its own trials, by what all have found"),
        "link_model": _not(f"`log_model` records it; {_NO_REGISTRY}"),
        "restore": _not("`use_artifact` finds what `save` kept, in `run-<id>-files`"),
        "join": _not("`finish` is its newer name"),
        "setup": _not(_NOTHING_TO_DO),
        "teardown": _not("`finish` ends a run, and nothing else is to be taken down"),
        "require": _not(_NOTHING_TO_DO),
        "ensure_configured": _not(_NOTHING_TO_DO),
        "attach": _not("one process records a run; `init(per_process=True)` gives each its own"),
        "mark_preempting": _here(_PREEMPTING),
        "pin_config_keys": _not("a matter of W&B's pages: pin them there"),
        "api": _not("`Api()` is its newer name"),
        "patched": _not(_LOG_YOURSELF),
        "helper": _not("`init(config=…)` takes mappings, dataclasses and namespaces as they are"),
        "sagemaker_auth": _not("set WANDB_API_KEY where W&B is to be reached"),
        "profiler": _not("`jax.profiler` profiles programs of JAX"),
        "visualize": _not("`plot_table` draws a table by a Vega-Lite specification"),
        "Config": _not("`run.config` is what it stands for"),
        "Error": _not("`TracklayerError` is the root of the errors here"),
        "UsageError": _not("`errors.UsageError` is the error about a call that cannot be right"),
        "CommError": _not("a server that is away raises nothing here, and is reported once"),
        "Graph": _not("draw it, and log the figure"),
        "EvalTable": _not("`Table` holds the same rows"),
        "box3d": _not("log the corners of the box as points of an `Object3D`"),
        "Molecule": _not("`save` keeps its file"),
        "ArtifactTTL": _not("nothing that is recorded here expires"),
        "Classes": _not('`Image` takes the classes as a list of `{"id": 1, "name": "cat"}`'),
        "JoinedTable": _not("join the rows, with pandas for example, and log a `Table`"),
        "termlog": _not("`print` what the user is to read"),
        "termwarn": _not("`warnings.warn` or the module `logging` say it"),
        "termerror": _not("the module `logging` says it"),
        "termsetup": _not('tracklayer speaks through `logging.getLogger("tracklayer")`'),
        "data_types": _not("its classes are attributes of `tracklayer` itself"),
        "util": _not("`tracklayer.naming.new_run_id()` makes ids; the rest is wandb's own"),
        "env": _not("the variables that are read here are in the README"),
        "sdk": _not("it is wandb's inside; what is public here is in `tracklayer.__all__`"),
        "apis": _not("`Api` reads recorded runs"),
        "integration": _not(_LOG_YOURSELF),
        "keras": _not(_LOG_YOURSELF),
        "tensorflow": _not(_LOG_YOURSELF),
        "tensorboard": _not(_ONE_RECORD),
        "sklearn": _not("`tracklayer.plot` draws confusion matrices, ROC and precision-recall curves"),
        "xgboost": _not(_LOG_YOURSELF),
        "lightgbm": _not(_LOG_YOURSELF),
        "catboost": _not(_LOG_YOURSELF),
        "sacred": _not(_LOG_YOURSELF),
        "gym": _not("log the frames as a `Video`"),
        "jupyter": _not("`init` and `finish` work in a notebook as anywhere"),
    },
    "init": {
        "project": _here("the first positional argument; `uncategorized` by default, as with wandb"),
        "entity": _here("matters to W&B alone"),
        "dir": _here("the store's folder itself, `.tracklayer` by default"),
        "id": _here(),
        "name": _here("the id by default; wandb invents two words"),
        "notes": _here(),
        "tags": _here(),
        "config": _here("no path: read the file, and pass what it holds"),
        "config_exclude_keys": _here(),
        "config_include_keys": _here(),
        "allow_val_change": _not("the config may always be changed; `config.update` takes it", (None, True)),
        "group": _here(),
        "job_type": _here(),
        "mode": _here('`"online"` means W&B unless the environment chose a backend; no `"shared"`'),
        "reinit": _here('by default, `"finish_previous"`'),
        "resume": _here('`"auto"` finds the newest run of this kind that failed or crashed'),
        "settings": _here("the fields are below"),
        "force": _not("`TRACKLAYER_FALLBACK=error` makes it an error that W&B cannot be used"),
        "resume_from": _not(_REWIND),
        "fork_from": _not("`replay` copies a run into a new one, which then goes on"),
        "save_code": _here("also the program's local imports, as one artifact; `TRACKLAYER_SAVE_CODE`"),
        "tensorboard": _not(_ONE_RECORD),
        "sync_tensorboard": _not(_ONE_RECORD),
        "monitor_gym": _not("log the frames as a `Video`"),
        "anonymous": _not("leave it out: it does nothing in wandb either", (None, "never")),
    },
    "login": {
        "key": _here("kept in this process's environment, where W&B's client looks; written nowhere"),
        "host": _here("likewise"),
        "relogin": _not(_NO_PROMPT),
        "force": _not("`TRACKLAYER_FALLBACK=error` makes it an error that W&B cannot be used"),
        "timeout": _not(_NO_PROMPT),
        "verify": _not("leave it out: `init` finds out whether the server takes the key"),
        "referrer": _not(_NOTHING_TO_DO),
        "prompt": _not(_NO_PROMPT),
        "anonymous": _not("leave it out: it does nothing in wandb either", (None, "never")),
    },
    "sweep": {
        "sweep": _here("also the path of a YAML file"),
        "entity": _here(),
        "project": _here(),
        "prior_runs": _here("runs of this store"),
    },
    "agent": {
        "sweep_id": _here(),
        "function": _here("without one, the sweep's `program` is run"),
        "entity": _here(),
        "project": _here(),
        "count": _here("without it, the agent ends when the sweep has nothing more to try"),
        "forward_signals": _not("leave it out: a program always gets them", (None, False, True)),
        "term_timeout": _not("leave it out: programs have 30 s to finish their runs"),
        "max_consecutive_failed_runs": _not("leave it out: an agent ends when its first 3 trials fail"),
    },
    "Settings": {
        "entity": _here(),
        "project": _here(),
        "run_id": _here(),
        "run_name": _here(),
        "run_group": _here(),
        "run_job_type": _here(),
        "run_notes": _here(),
        "run_tags": _here(),
        "mode": _here(),
        "reinit": _here(),
        "resume": _here(),
        "root_dir": _here("as `dir` of `init`"),
        "init_timeout": _here("9 s by default; then training goes on, and is recorded locally"),
        "finish_timeout": _here("30 s by default; `tracklayer push` sends what is left then"),
        "console": _here("`TRACKLAYER_CONSOLE`"),
        "save_code": _here("also the program's local imports, as one artifact; `TRACKLAYER_SAVE_CODE`"),
        "disable_code": _here("also leaves out the diff; `TRACKLAYER_OMIT=code,diff`"),
        "disable_git": _here("`TRACKLAYER_OMIT=git`"),
        "x_disable_stats": _here("`TRACKLAYER_SYSTEM_INTERVAL=0`"),
        "x_stats_sampling_interval": _here("`TRACKLAYER_SYSTEM_INTERVAL`; 10 s by default"),
        "x_disable_meta": _here("leaves out the code and the packages, too; `TRACKLAYER_OMIT`"),
        "x_save_requirements": _here("`TRACKLAYER_OMIT=packages`"),
    },
    "log": {"data": _here(), "step": _here("any order is kept"), "commit": _here()},
    "finish": {"exit_code": _here()},
    "define_metric": {
        "name": _here(),
        "step_metric": _here(),
        "summary": _here('`"first"` and `"copy"` are refused'),
        "step_sync": _not("log the step metric in each row that is drawn over it"),
        "hidden": _not("a matter of W&B's pages: hide it there"),
        "overwrite": _here(),
    },
    "log_artifact": {
        "artifact_or_path": _here(),
        "name": _here(),
        "type": _here(),
        "aliases": _here(),
        "tags": _not(_NO_TAGS, (None, [], ())),
    },
    "use_artifact": {
        "artifact_or_name": _here("the project is that of the run, unless the name begins with another"),
        "type": _here(),
        "aliases": _here("are given to the version in any case; wandb does so where it logs a draft"),
        "use_as": _not(_NOTHING_TO_DO, (None,)),
    },
    "log_model": {"path": _here(), "name": _here(), "aliases": _here()},
    "use_model": {"name": _here()},
    "Artifact": {
        "name": _here(),
        "type": _here(),
        "description": _here("is given before it is logged, and stays"),
        "metadata": _here("is given before it is logged, and stays"),
        "add_file": _here("its content is that at `log_artifact`, and wandb's that at the call"),
        "add_dir": _here("as `add_file`; a link that leads out of the folder is refused"),
        "add_reference": _here("also a path; the SHA-256 of local content; other URIs by fsspec"),
        "new_file": _here(),
        "remove": _here(),
        "aliases": _here("what is changed counts after `save`"),
        "created_at": _here(),
        "delete": _here("`tracklayer gc` then frees what nothing needs any more"),
        "digest": _here("a SHA-256, and W&B's is an MD5"),
        "download": _here("checks each file; also fetches references"),
        "file": _here(),
        "file_count": _here(),
        "files": _here("a list; `path(name)` downloads one"),
        "get_entry": _here("has `path`, `size`, `digest`, `ref` and `download`"),
        "is_draft": _here(),
        "logged_by": _here("a list: the readers of all runs that logged this content, in order"),
        "project": _here(),
        "qualified_name": _here("without the entity"),
        "save": _here("its aliases; `log_artifact` is what stores it first"),
        "size": _here(),
        "state": _here(),
        "used_by": _here("a list of readers"),
        "verify": _here("without a folder it is the store that is looked at; `CorruptArtifactError`"),
        "version": _here(),
        "wait": _here("needed after `log_artifact(…, wait=False)` alone"),
        "incremental": _not(_WHOLE),
        "use_as": _not(_NOTHING_TO_DO, (None,)),
        "storage_region": _not("it is where the store is", (None,)),
        "digest_algorithm": _not("content is known by its SHA-256", (None, "MD5")),
        "add": _not("log media under a key; they are the run's, not an artifact's"),
        "get": _not("log media under a key; `open_store().run(id).media(key)` has them back"),
        "checkout": _not("`download` into an empty folder"),
        "collection": _not("`open_store().artifacts(name=…)` lists the versions"),
        "commit_hash": _not("`digest` tells the content apart"),
        "distributed_id": _not("one process logs an artifact"),
        "entity": _not("`project` is where its versions are counted"),
        "finalize": _not("leave it out: `log_artifact` does it"),
        "get_added_local_path_name": _not("a file has the name that `add_file` gave it"),
        "get_path": _not("`get_entry` is its newer name"),
        "history_step": _not("log the version beside the row, if it matters"),
        "id": _not("`digest` tells the content apart"),
        "is_link": _not(_NO_REGISTRY),
        "json_encode": _not("`files()` and `metadata` are what there is to encode"),
        "link": _not(_NO_REGISTRY),
        "linked_artifacts": _not(_NO_REGISTRY),
        "linked_at": _not(_NO_REGISTRY),
        "manifest": _not("`files()` lists what it holds"),
        "new_draft": _not("`download` it, change that, and log it as a new `Artifact`"),
        "source_artifact": _not(_NO_REGISTRY),
        "source_collection": _not(_NO_REGISTRY),
        "source_entity": _not(_NO_REGISTRY),
        "source_name": _not("`name` is the only one there is"),
        "source_project": _not("`project` is the only one there is"),
        "source_qualified_name": _not("`qualified_name` is the only one there is"),
        "source_version": _not("`version` is the only one there is"),
        "tags": _not(_NO_TAGS),
        "ttl": _not("nothing that is recorded here expires"),
        "unlink": _not(_NO_REGISTRY),
        "updated_at": _not("`created_at`: a version does not change"),
        "url": _not("`logged_by()[0]` is the run that made it, which may have one"),
    },
    "Artifact.add_file": {
        "local_path": _here(),
        "name": _here(),
        "overwrite": _here(),
        "is_tmp": _not("`name` is the file's name as it is"),
        "skip_cache": _not(_NO_CACHE, (None, False, True)),
        "policy": _not(_AT_LOG, (None, "mutable", "immutable")),
    },
    "Artifact.add_dir": {
        "local_path": _here(),
        "name": _here(),
        "merge": _here(),
        "skip_cache": _not(_NO_CACHE, (None, False, True)),
        "policy": _not(_AT_LOG, (None, "mutable", "immutable")),
    },
    "Artifact.add_reference": {
        "uri": _here(),
        "name": _here(),
        "checksum": _here(),
        "max_objects": _here("10,000 by default, and not 10,000,000"),
    },
    "Artifact.new_file": {
        "name": _here(),
        "mode": _here("`x` or `w`, with `b` for bytes"),
        "encoding": _here("UTF-8 by default"),
        "policy": _not(_AT_LOG, (None, "mutable", "immutable")),
    },
    "Artifact.download": {
        "root": _here(),
        "path_prefix": _here(),
        "allow_missing_references": _not("`path_prefix` leaves files out"),
        "skip_cache": _not(_NO_CACHE, (None, False, True)),
        "multipart": _not("leave it out: several files are copied at once", (None, False, True)),
    },
    "save": {
        "glob_str": _here(),
        "base_path": _here(),
        "policy": _here(
            '`"now"`: the content at the call; `"end"`: at `finish`; `"live"`: at the call, and again at '
            "`finish` if it changed"
        ),
        "glob": _here(),
    },
    "log_code": {
        "root": _here("None: the program and its local imports alone"),
        "name": _here(),
        "include_fn": _here(),
        "exclude_fn": _here(),
    },
    "alert": {
        "title": _here(),
        "text": _here(),
        "level": _here(),
        "wait_duration": _here("between two on stderr; each is recorded"),
    },
    "watch": {
        "models": _here("modules of Flax NNX"),
        "log": _here('`"parameters"`, which is also the default; wandb\'s is `"gradients"`'),
        "log_freq": _here("counted in calls of `log`, the first included"),
        "idx": _here(),
        "criterion": _not("it only serves the graph, which JAX does not have"),
        "log_graph": _not("`nnx.display(model)` shows what a model is made of"),
    },
    "unwatch": {"models": _here()},
    "Run": {
        "alert": _here(),
        "config": _here(),
        "define_metric": _here(),
        "dir": _here("the store's folder: a file put there is not recorded, `save` records it"),
        "disabled": _here(),
        "entity": _here("None where none was given and W&B has not said it"),
        "finish": _here(),
        "group": _here('None where wandb has `""`'),
        "id": _here(),
        "job_type": _here('None where wandb has `""`'),
        "log": _here(),
        "log_artifact": _here(),
        "log_model": _here(),
        "name": _here("is given to `init`, and stays"),
        "notes": _here("are given to `init`, and stay"),
        "offline": _here("whether no hosted backend records"),
        "path": _here(),
        "project": _here(),
        "resumed": _here(),
        "save": _here(),
        "start_time": _here(),
        "step": _here(),
        "summary": _here(),
        "tags": _here("are given to `init`, and stay"),
        "unwatch": _here(),
        "url": _here("None without W&B"),
        "use_artifact": _here(),
        "use_model": _here(),
        "watch": _here(),
        "config_static": _not("`dict(run.config)` is a copy"),
        "display": _not("`run.url` is where W&B shows it"),
        "finish_artifact": _not("one process logs an artifact: `log_artifact`"),
        "upsert_artifact": _not("one process logs an artifact: `log_artifact`"),
        "link_artifact": _not(_NO_REGISTRY),
        "link_model": _not(f"`log_model` records it; {_NO_REGISTRY}"),
        "log_code": _here("leaves out dotfiles, installed packages, and files whose names tell of secrets"),
        "mark_preempting": _here(_PREEMPTING),
        "pin_config_keys": _not("a matter of W&B's pages: pin them there"),
        "project_url": _not("`url` begins with it"),
        "restore": _not("`use_artifact` finds what `save` kept, in `run-<id>-files`"),
        "settings": _not("`info` says what the run is, `dir` where its store is"),
        "starting_step": _not("`step`, before the first `log`"),
        "status": _not("`flush` says whether all is durable"),
        "sweep_id": _here(),
        "sweep_url": _not("`tracklayer sweep show ID` tells of it"),
        "sync_dir": _not("`dir` is the store; `tracklayer push` sends the run"),
        "to_html": _not("`url` is where W&B shows it"),
        "write_logs": _not("`log` takes text, too"),
    },
    "errors": {
        "Error": _not("`TracklayerError` is the root of the errors here"),
        "UsageError": _here(),
        "CommError": _not("a server that is away raises nothing here, and is reported once"),
        "AuthenticationError": _not("without a login, a run is recorded locally, and that is reported once"),
        "UnsupportedError": _not("`NotSupportedError` is raised for what is not here"),
        "WandbCoreNotAvailableError": _not("`BackendUnavailableError` says that W&B cannot be used"),
    },
    "Api": {
        "runs": _here("a list; `path` may leave the entity out"),
        "run": _here("`path` may leave all but the id out"),
        "artifact": _here("the name may leave entity and project out"),
        "artifacts": _here("a list, the newest first"),
        "artifact_exists": _here(),
        "artifact_collection_exists": _here(),
        "overrides": _here("`entity` and `project`"),
        "timeout": _not("leave it out: no server is asked"),
        "api_key": _not("leave it out: no server is asked"),
        "default_entity": _not("a store has no default"),
        "project": _not("`runs(project)` lists what belongs to one"),
        "projects": _not("`{run.project for run in Api().runs()}` are those there are"),
        "sweep": _not("`runs(filters={'group': …})` finds the runs of a sweep: its id is their group"),
        "flush": _not("leave it out: nothing is cached"),
        "create_run": _not("`init` creates runs"),
        "create_project": _not("leave it out: a project is there as soon as a run names it"),
        "from_path": _not("`run` or `runs`, for what the path means"),
        "viewer": _not("a store has no users"),
        "sync_tensorboard": _not(_ONE_RECORD),
        "artifact_versions": _not("`artifacts` is its newer name"),
        **dict.fromkeys(
            ("artifact_collection", "artifact_collections", "artifact_type", "artifact_types"),
            _not("`open_store().artifacts()` lists all versions, with name and type"),
        ),
        **dict.fromkeys(
            (
                "automation",
                "automations",
                "create_automation",
                "create_custom_chart",
                "create_registry",
                "create_run_queue",
                "create_team",
                "create_user",
                "delete_automation",
                "integrations",
                "job",
                "list_jobs",
                "organization",
                "queued_run",
                "registries",
                "registry",
                "reports",
                "run_queue",
                "slack_integrations",
                "team",
                "update_automation",
                "upsert_run_queue",
                "user",
                "user_agent",
                "users",
                "webhook_integrations",
            ),
            _not(_ASK_SERVER),
        ),
    },
    "Api.runs": {
        "path": _here(),
        "filters": _here("the operators that wandb names, on the fields that a store has"),
        "order": _here("`created_at`, `config.*` and `summary_metrics.*`, with + or -"),
        "per_page": _here(_READ_WHOLE),
        "lazy": _here(_READ_WHOLE),
        "include_sweeps": _not("leave it out: a run's `group` is its sweep's id"),
    },
    "Api.artifact": {"name": _here(), "type": _here()},
    "Api.artifacts": {
        "type_name": _here(),
        "name": _here(),
        "order": _not("sort the list as you like"),
        "per_page": _here(_READ_WHOLE),
        "tags": _not(_NO_TAGS, (None, [], ())),
        "start": _not("leave it out: the list is whole"),
    },
    "Api.run": {
        "id": _here(),
        "name": _here(),
        "project": _here(),
        "entity": _here("None where none was given"),
        "state": _here(),
        "config": _here(),
        "summary": _here("read only"),
        "summary_metrics": _here(),
        "tags": _here(),
        "group": _here(),
        "job_type": _here(),
        "notes": _here(),
        "url": _here("None until the run was pushed"),
        "created_at": _here(),
        "path": _here(),
        "lastHistoryStep": _here(),
        "history": _here("media are tracklayer's values; `pandas=True` needs pandas"),
        "scan_history": _here("media are tracklayer's values"),
        "logged_artifacts": _here("a list of the versions that were not deleted"),
        "used_artifacts": _here("a list of the versions that were not deleted"),
        "update": _not('`init(id=…, resume="must")` continues a run, and may change it'),
        "save": _not('`init(id=…, resume="must")` continues a run, and may change it'),
        "delete": _not("remove its file in the store's folder `runs`"),
        "file": _not("`logged_artifacts()` has what `save` kept"),
        "files": _not("`logged_artifacts()` has what `save` kept"),
        "upload_file": _not('`init(id=…, resume="must")` continues a run, which has `save`'),
        "log_artifact": _not('`init(id=…, resume="must")` continues a run, which has `log_artifact`'),
        "use_artifact": _not('`init(id=…, resume="must")` continues a run, which has `use_artifact`'),
        "load": _not("leave it out: what is asked for is read then"),
        "load_full_data": _not("leave it out: what is asked for is read then"),
        "wait_until_finished": _not("read `Api().run(id).state` until it is another than `running`"),
        "update_state": _not("the process that records a run decides how it ended"),
        "stop": _not("end the process that records it"),
        "metadata": _not("`open_store().run(id).environments()` says what it ran on"),
        "system_metrics": _not("`open_store().run(id).system_metrics()` has them"),
        "sweep": _not("`group` is its sweep's id"),
        "sweep_name": _not("`group` is its sweep's id"),
        "json_config": _not("`json.dumps(run.config)`"),
        "rawconfig": _not("`config` has all that was recorded"),
        "storage_id": _not("`id` is the only one there is"),
        "username": _not("`entity`, where one was given"),
        "console_logs": _not("`open_store().run(id).console()` has its lines"),
        "beta_scan_history": _not("`scan_history`"),
        "download_history_exports": _not("`history()` has it"),
        "to_html": _not("there is no page to show"),
        "display": _not("there is no page to show"),
        "create": _not("`init` creates runs"),
    },
    "Api.run.summary": {
        "update": _not('`init(id=…, resume="must")` continues a run, and may change it'),
    },
    "Api.run.history": {
        "samples": _here("evenly spaced"),
        "keys": _here("rows that have all of them"),
        "x_axis": _here(),
        "pandas": _here(),
        "stream": _not("`open_store().run(id).system_metrics()` has the other one", (None, "default")),
    },
    "Api.run.scan_history": {
        "keys": _here("rows that have all of them"),
        "min_step": _here(),
        "max_step": _here(),
        "page_size": _here(_READ_WHOLE),
        "use_cache": _here(_READ_WHOLE),
    },
}
"""By what owns the name: the module, a class, or a call with its arguments."""


def absent(owner: str, name: str) -> NotSupportedError | None:
    """Return the error about one of wandb's names that is not here; None for a name of nobody's."""
    known = NAMES[owner].get(name)
    return None if known is None or known.is_here else NotSupportedError(_said(owner, name, known))


def tells_what_is_absent(owner: str) -> Callable[[type[_Class]], type[_Class]]:
    """Have a class raise the errors about those of wandb's names that it does not have.

    Not by `__getattr__`, which would make each access to what it does have slower.
    """

    def tell(kind: type[_Class]) -> type[_Class]:
        for name, known in NAMES[owner].items():
            if not known.is_here:
                setattr(kind, name, _Absent(_said(owner, name, known)))
        return kind

    return tell


@final
class _Absent:
    """An attribute that raises an error with a message."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __get__(self, instance: object, kind: type | None = None) -> object:
        raise NotSupportedError(self._message)


def _said(owner: str, name: str, known: Name) -> str:
    whose = "wandb" if owner == "wandb" else f"wandb's {owner}"
    return f"{whose}.{name} is not in tracklayer: {known.note}"


def refuse(call: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that a call does not take, unless they are wandb's and ask for nothing.

    Raises:
        UsageError: it is wandb's, and cannot be had here; the message says what to do.
        TypeError: nobody has such an argument.
    """
    for name, value in arguments.items():
        found = NAMES[call].get(name)
        if found is None:
            msg = f"{call}() got an unexpected keyword argument {name!r}"
            raise TypeError(msg)
        if not found.is_here and value not in found.harmless:
            # not its value: it may be a secret
            msg = f"{call}: wandb's argument {name!r} is not in tracklayer: {found.note}"
            raise UsageError(msg)
