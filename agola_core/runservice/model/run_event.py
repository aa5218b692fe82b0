"""What made a run begin, as its annotations tell. Pure."""

from __future__ import annotations

from agola_core.runservice.model.types import Run

WEBHOOK_EVENT, TRIGGER = "webhook_event", "run_creation_trigger"
MANUAL = "manual"
"""The trigger of a run that somebody started."""
_WEBHOOK = "webhook"


def event_of(run: Run) -> str:
    """Return what made a run begin, by Agola's names; "" where a run does not say it.

    It is a webhook's `push`, `tag` or `pull_request`, or `manual`; a client may have given others.
    """
    trigger = run.annotations.get(TRIGGER, "")
    return run.annotations.get(WEBHOOK_EVENT, "") or ("" if trigger == _WEBHOOK else trigger)
