"""Runs the commands of a page of the documentation."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def run_page(page, directory, **replaced):
    """Run the commands of a page's `sh` blocks, each an `agola-core` of this checkout.

    Args:
        page: The page.
        directory: In the place of /var/lib/agola.
        replaced: What else stands for what in the blocks.
    """
    blocks = re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    text = "\n".join(blocks).replace("/var/lib/agola", str(directory))
    for there, here in replaced.items():
        assert there in text
        text = text.replace(there, here)
    tool = f'agola_core() {{ "{sys.executable}" -m agola_cli.main "$@"; }}\n'
    return subprocess.run(
        ["bash", "-ec", tool + re.sub(r"^agola-core ", "agola_core ", text, flags=re.MULTILINE)],
        cwd=directory.parent,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "AGOLA_DATA_DIR": str(directory.parent / "data"), "HOME": str(directory.parent)},
    )
