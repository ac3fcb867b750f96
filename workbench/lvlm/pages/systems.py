"""docs/systems.md: every attention system and reducer, from its file's docstring and its entry.

``python -m workbench.lvlm.pages.systems`` prints the page; a test holds the two together.
"""

import ast
from pathlib import Path

from workbench.vocabulary.systems import Entry, entries

HEAD = """# Attention systems and reducers

What each computes, its order in |V|, what it gives up against S-Attn, its source and its settings
(`--set name=value`). V are visual tokens, T text tokens; V2V is what visual tokens read of each
other, T2V what text reads of them. `workbench compare-systems` says what each costs on a card;
`probes/literature.py` sweeps them all.

This page is made from the code: `python -m workbench.lvlm.pages.systems`.
"""


def page() -> str:
    """The whole page, Markdown."""
    sections = [HEAD]
    for kind, named in entries().items():
        title = "Attention systems" if kind == "attention" else "Reducers"
        sections.append(f"## {title}\n")
        sections += [_section(kind, one) for one in named.values()]
    return "\n".join(sections)


def _section(kind: str, one: Entry) -> str:
    file = Path(__file__).parents[1] / kind / f"{one.name}.py"
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    lines = [f"### {one.label}: `{one.name}`\n", doc.replace("``", "`"), ""]
    facts = f"Kind: {one.group}. Gives up: {one.gives_up}."
    if one.logits == "text":
        facts += " No visual row reaches the LM head."
    lines.append(facts)
    for setting in one.settings.values():
        lines.append(f"- `{setting.name}={setting.default}`: {setting.help}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(page(), end="")
