"""How close each cell comes to its card's limits."""

from workbench.analysis.thin import thin
from workbench.aspects import ASPECTS, Aspect
from workbench.figures import placed, roofline
from workbench.telling.ceilings import ceilings
from workbench.telling.material import Material, Subject, drawn
from workbench.telling.page import Block
from workbench.telling.sentences import at_place, place, places
from workbench.telling.words import provenance, setting, thinned

TITLE = "How close to the card's limits"


MEANING = (
    "Points grow with |V|. FLOPs are those that the kernel does: all pairs for eager and under the"
    " mask of a window, the allowed ones else. Bytes are operator inputs read once and outputs"
    " written once, unfused: a fused kernel moves fewer."
)
MISSING = "No cell here has both a time and the bytes that it moved."


def roofline_block(material: Material, subject: Subject) -> Block:
    """The roofline of the place that has the most cells with a time and bytes."""
    rows = placed(subject.rows)
    if rows.empty:
        return Block(TITLE, (MISSING,))
    source, device = max(places(rows), key=lambda each: len(at_place(rows, *each)))
    here = at_place(rows, source, device)
    lines, words, sources = ceilings(here)
    points = thin(here, ("time_s",), most=material.most_points)
    caption = (
        f"{setting(here)}, {place(source, device)}.",
        MEANING,
        words,
        sources,
        *provenance(here, bars=False),
        thinned(points, here),
    )
    figure = drawn(
        f"{subject.slug}-roofline",
        f"{subject.title}: roofline",
        lambda theme: roofline(points, material.looks, theme, lines),
        caption,
    )
    return Block(TITLE, figure=figure)


ASPECTS.add(
    "roofline",
    Aspect(
        order=5,
        page="Roofline",
        question="How close to the card's limits?",
        icon="roofing",
        block=roofline_block,
    ),
)
