"""Trials of a function: it is called with a trial's parameters, which its `init` finds."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from tracklayer import lifecycle, reporting
from tracklayer.errors import StoreError, TrialPruned

if TYPE_CHECKING:
    from tracklayer.sweeps.claiming import ClaimedTrial, Outcome


def call(function: Callable[[], object], claimed: ClaimedTrial) -> None:
    """Call a function that trains with a trial's parameters, and see to the end of its runs and of the trial.

    Raises:
        StoreError: no run can be recorded, which is not the trial's fault, and would be so for the next one.
        BaseException: what is meant to end the process, such as `KeyboardInterrupt`.
    """
    from tracklayer.sweeps.current import working_on
    from tracklayer.sweeps.trial import trial_of

    error: BaseException | None = None
    try:
        with working_on(trial_of(claimed)), lifecycle.finishing_runs():
            _call_aloud(function)
    except BaseException as raised:  # noqa: BLE001 - the trial ends first, whatever it is
        error = raised
    is_cut_off = lifecycle.ended_by_signal(lifecycle.exit_code_of(error)) or isinstance(error, StoreError)
    if error is not None and (is_cut_off or not isinstance(error, Exception | SystemExit)):
        _end(claimed, "died")
        raise error
    # the end of its run told that of the trial, but where there was no run, or it was cut off from outside
    had_run = "run" in claimed.recorded().user_attrs
    if _end(claimed, "died" if had_run else "failed") and error is None and not had_run:
        reporting.warn(f"{claimed}: the function recorded no run: it is to call tracklayer.init")


def _end(claimed: ClaimedTrial, outcome: Outcome) -> bool:
    """Tell the end of a trial, unless its run told it; say whether that was so."""
    try:
        return claimed.end(outcome)
    except StoreError as error:  # the agent waits for the store before it claims another one
        reporting.warn(
            f"{claimed}: its end is not told ({error}): it is tried again once this agent has ended"
        )
        return False


def _call_aloud(function: Callable[[], object]) -> None:
    """Call a function, and show the traceback of what it raises while its run is open, which records that."""
    try:
        function()
    except (TrialPruned, StoreError):
        raise
    except SystemExit as error:
        if isinstance(error.code, str):  # which Python shows where it ends the process
            sys.stderr.write(f"{error.code}\n")
        raise
    except Exception as error:
        trace = error.__traceback__ and error.__traceback__.tb_next  # the function's own
        traceback.print_exception(type(error), error, trace)
        raise
