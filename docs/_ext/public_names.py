"""The directives `public-names MODULE`, all public names of a module, and `fixtures`, those of the pytest plugin."""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from names import directive_of, fixtures, public_names
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Generated(SphinxDirective):
    """A part of a page that is written as text and parsed."""

    has_content = False

    def parsed(self, lines: list[str], source: str) -> list[nodes.Node]:
        """Return the nodes of some lines of text."""
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source), 0, node)
        return node.children


class PublicNames(Generated):
    """Documents every public name of a module, but those that a module named by `:but:` hands out, too."""

    required_arguments = 1
    option_spec: ClassVar = {"but": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return the documentation."""
        (module,) = self.arguments
        elsewhere = {name for other in self.options.get("but", "").split() for name in public_names(other)}
        lines: list[str] = []
        for name in public_names(module):
            if name not in elsewhere:
                lines += [*directive_of(module, name), ""]
        return self.parsed(lines, module)


class Fixtures(Generated):
    """Documents every fixture of the pytest plugin."""

    def run(self) -> list[nodes.Node]:
        """Return the documentation."""
        lines: list[str] = []
        for fixture in fixtures():
            lines += [f".. py:data:: {fixture.name}", "   :no-index:", ""]
            lines += [f"   Lasts for a {fixture.scope}.", "", *(f"   {line}" for line in fixture.text.splitlines()), ""]
        return self.parsed(lines, "agola_pytest.plugin")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("public-names", PublicNames)
    app.add_directive("fixtures", Fixtures)
    return {"parallel_read_safe": True}
