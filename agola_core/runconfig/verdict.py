"""Predicts what a real Agola 0.2 would do with a configuration. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agola_core.runconfig.findings import Finding, FindingKind


class Verdict(msgspec.Struct, frozen=True):
    """What Agola 0.2 does with a file.

    Attributes:
        accepts: Whether it accepts the file; None if this project cannot tell.
        summary: The same in one line, for users.
        details: What it refuses, ignores, or does differently, each with its place.
    """

    accepts: bool | None
    summary: str
    details: tuple[Finding, ...] = ()


def predict_verdict(findings: Sequence[Finding], *, refused: bool) -> Verdict:
    """Return what Agola 0.2 does with a file.

    Args:
        findings: All findings of this project in the file.
        refused: Whether this project refuses it.
    """
    details = tuple(finding for finding in findings if finding.kind is not FindingKind.WARNING)
    kinds = {finding.kind for finding in details}
    if FindingKind.REFUSED in kinds:
        return Verdict(False, "Agola 0.2 refuses it", details)
    if FindingKind.OWN_ERROR in kinds:
        return Verdict(None, "Agola 0.2 does not refuse it for this error; the rest was not read", details)
    if refused:
        return Verdict(False, "Agola 0.2 refuses it, or crashes on it, as well", details)
    if details:
        return Verdict(True, "Agola 0.2 accepts it, and takes some of it otherwise", details)
    return Verdict(True, "Agola 0.2 accepts it, and does the same")
