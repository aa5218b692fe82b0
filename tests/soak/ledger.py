"""The ledger: what all soaks on this machine have counted, added up in bench/results/soak.json."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

LEDGER = Path(__file__).parents[2] / "bench/results/soak.json"


def add(campaign: str, counts: Counter[str], violations: list[str], path: Path = LEDGER) -> Counter[str]:
    """Add counts to a campaign's, keep its violations, and return its sums."""
    path.parent.mkdir(exist_ok=True)
    ledger = json.loads(path.read_text()) if path.exists() else {}
    entry = ledger.setdefault(campaign, {"counts": {}, "violations": []})
    total = Counter(entry["counts"])
    total.update(counts)
    entry["counts"] = dict(sorted(total.items()))
    entry["violations"] += violations
    part = path.with_suffix(".part")
    part.write_text(json.dumps(ledger, indent=1))
    part.replace(path)
    return total
