"""Every error that tracklayer raises, as one tree.

    TracklayerError
    ├── UsageError (ValueError)              an argument or a setting that cannot be right
    │   └── UnknownBackendError
    ├── UnsupportedValueError (TypeError)    a key, step or value of a type that cannot be logged
    ├── NotSupportedError (AttributeError)   a name of wandb's that tracklayer does not have
    ├── NoActiveRunError (RuntimeError, AttributeError)  a module-level call without an open run
    ├── RunFinishedError (RuntimeError)      a call on a run that was finished
    ├── RunNotFoundError (LookupError)
    ├── AmbiguousRunError (LookupError)
    ├── RunExistsError (FileExistsError)
    ├── RunInUseError (RuntimeError)         another live process records this run
    ├── ArtifactNotFoundError (LookupError)
    ├── AmbiguousArtifactError (LookupError)
    ├── SweepNotFoundError (LookupError)
    ├── TrialLostError (RuntimeError)        a sweep's trial is another process's by now, or has ended
    ├── TrialPruned                          no error: a sweep's trial is to end, as it does badly
    ├── FileChangedError (RuntimeError)      a file changes while it is stored
    ├── BackendUnavailableError (RuntimeError)   cannot be used here: package, login, server
    ├── BackendLostError (ConnectionError)   was usable, and is gone for good
    └── StoreError (OSError)                 the store cannot be read or written
        ├── CorruptRunError
        ├── CorruptArtifactError
        └── StoreTooNewError

Each error is also the standard exception that a caller would catch.  Errors of *recording* (a full disk, a
server that is away) are never raised into training: they are reported once and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING


class TracklayerError(Exception):
    """The root of the tree: catch this to catch all of it."""


class UsageError(TracklayerError, ValueError):
    """An argument or a setting that cannot be right."""


class UnknownBackendError(UsageError):
    """A backend name that no installed distribution registers."""


class UnsupportedValueError(TracklayerError, TypeError):
    """A key, step or value of a type that cannot be logged; the message names the key."""


class NotSupportedError(TracklayerError, AttributeError):
    """A name of wandb's that tracklayer does not have; the message names what comes nearest."""


class NoActiveRunError(TracklayerError, RuntimeError, AttributeError):
    """A module-level function or attribute was used while no run is open.

    An `AttributeError` too, because `tracklayer.run` and `tracklayer.config` are attributes.
    """


class RunFinishedError(TracklayerError, RuntimeError):
    """A call on a run that was finished."""


class RunNotFoundError(TracklayerError, LookupError):
    """No recorded run goes by that name."""


class AmbiguousRunError(TracklayerError, LookupError):
    """Several recorded runs go by that name; the message lists them."""


class ArtifactNotFoundError(TracklayerError, LookupError):
    """No artifact, version or alias goes by that name; the message lists what there is."""


class AmbiguousArtifactError(TracklayerError, LookupError):
    """Several projects have an artifact of that name; the message lists them."""


class SweepNotFoundError(TracklayerError, LookupError):
    """No sweep goes by that name, or several do; the message lists them."""


class TrialLostError(TracklayerError, RuntimeError):
    """A sweep's trial has ended, or another process works on it: its process was taken for dead."""


class TrialPruned(TracklayerError):  # noqa: N818 - Optuna's name for it, and it is no error
    """The trial of a sweep is to end early, as it does badly beside the others; the message says when.

    Raised by `log` and `log_series`, once they have recorded the row, whenever that holds the sweep's metric.
    Catch it to save what there is, then end the run or raise it again: the agent goes on with the next trial.
    A program of several JAX processes gets it in process 0, which is the one that records.  Rows of
    `tracklayer.jax.log` raise nothing, since a compiled program cannot be ended in the middle.
    """


class FileChangedError(TracklayerError, RuntimeError):
    """A file changed each time that it was being stored, so that there is no content to keep."""


class RunExistsError(TracklayerError, FileExistsError):
    """A run with that id is recorded already and was not to be continued."""


class RunInUseError(TracklayerError, RuntimeError):
    """Another live process records this run; the message names its host and process."""


class BackendUnavailableError(TracklayerError, RuntimeError):
    """A backend cannot be used here; the message says why and what to do."""


class BackendLostError(TracklayerError, ConnectionError):
    """A backend that worked is gone and will not come back in this process."""


class StoreError(TracklayerError, OSError):
    """The store cannot be read or written."""


class CorruptRunError(StoreError):
    """A run's file is truncated or damaged; the other runs of the store stay readable."""


class CorruptArtifactError(StoreError):
    """Content of an artifact is gone, or is not what was stored; it is never handed out."""


class StoreTooNewError(StoreError):
    """A run's file was written by a newer tracklayer."""


if not TYPE_CHECKING:  # a checker knows what is here

    def __getattr__(name: str) -> object:
        if name.startswith("__"):  # what Python itself asks for, also while this module is imported
            raise AttributeError(name)
        from tracklayer.porting import absent  # it imports this module

        raise absent("errors", name) or AttributeError(f"module {__name__!r} has no attribute {name!r}")
