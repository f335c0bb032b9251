"""The ledger of recipes: each published score with its source, program and known differences.

`python -m ember_reid.config.ledger > docs/reference/recipes.md` writes the page.
"""

import sys
import textwrap

from ember_reid.config.recipe_headers import RecipeHeader, header_chain
from ember_reid.config.recipes import recipe_names

_HEAD = """# Recipes and published scores

Generated from the headers of the recipes. Scores are in percent, as the authors of the named
program published them; none of them was measured with ember-reid. A source is a page, the date of
the commit that published the score, and the commit. "Settings of" is the program whose settings the
recipe has. A recipe also inherits the settings and differences of the bases that it names; they are
in [Programs and differences](#programs-and-differences).
"""


def recipe_ledger() -> str:
    """Return the page: bases, recipes with published scores by folder, recipes without."""
    chains = {name: header_chain(name) for name in recipe_names()}
    scored = {name: chain for name, chain in chains.items() if chain[-1].scores}
    parts = [_HEAD, "## Programs and differences\n"]
    bases = {base.name: base for chain in chains.values() for base in chain[:-1]}
    parts += [
        _describe_base(base)
        for _, base in sorted(bases.items())
        if base.program and base.name not in chains
    ]
    parts.append("## Recipes with a published score\n")
    folder = ""
    for name, chain in scored.items():
        if name.rpartition("/")[0] != folder:
            folder = name.rpartition("/")[0]
            parts.append(f"### configs/{folder}\n")
        parts.append(_describe_recipe(chain))
    parts.append("## Recipes without a published score\n")
    parts += [_describe_unscored(chain[-1]) for name, chain in chains.items() if name not in scored]
    return "\n".join(parts)


def _describe_base(base: RecipeHeader) -> str:
    lines = [f"- `{base.name}`: settings of {base.program}"]
    if base.differs:
        lines.append(f"Differs: {base.differs}")
    return _join(lines)


def _describe_recipe(chain: list[RecipeHeader]) -> str:
    header = chain[-1]
    lines = [f"- `{header.name}`: {header.title}"]
    for score in header.scores:
        condition = f" ({score.condition})" if score.condition else ""
        lines.append(f"Score{condition}: {score.text}")
    lines.append(f"Source: {header.source}")
    if header.program:
        lines.append(f"Settings of: {header.program}")
    named = [base.name for base in chain[:-1] if base.program]
    if named:
        lines.append(f"Bases: {', '.join(named)}")
    if header.differs:
        lines.append(f"Differs: {header.differs}")
    return _join(lines)


def _describe_unscored(header: RecipeHeader) -> str:
    lines = [f"- `{header.name}`: {header.title}"]
    if header.no_score not in ("", "none published"):
        lines.append(f"Score: {header.no_score}")
    if header.measured:
        lines.append(f"Measured: {header.measured}")
    return _join(lines)


def _join(lines: list[str]) -> str:
    """A list item whose lines are wrapped, with line breaks (two spaces) between them."""
    first = textwrap.fill(lines[0], 98, subsequent_indent="  ", break_on_hyphens=False)
    rest = [
        textwrap.fill(line, 97, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        for line in lines[1:]
    ]
    return "  \n".join([first, *rest]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(recipe_ledger())
