"""Renders a status badge for a README: the state of a group's newest run. Pure."""

from __future__ import annotations

from html import escape

_COLOURS = {"success": "#17692f", "failed": "#b3201f", "setuperror": "#b3201f", "running": "#0b5fa5"}
_CHARACTER = 6.6
_MAX_LABEL = 200


def badge(label: str, state: str) -> str:
    """Return a badge as SVG.

    Args:
        label: The left half.
        state: The right half.
    """
    label = label[:_MAX_LABEL]
    left, right = int(len(label) * _CHARACTER) + 14, int(len(state) * _CHARACTER) + 14
    colour = _COLOURS.get(state, "#566275")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{escape(label)}: {escape(state)}">'
        f'<rect width="{left + right}" height="20" rx="3" fill="#3c4656"/>'
        f'<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right - 3}z" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14">{escape(label)}</text><text x="{left + right / 2}" y="14">{escape(state)}</text>'
        "</g></svg>"
    )
