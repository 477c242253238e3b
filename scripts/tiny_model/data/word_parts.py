"""Parts of English words of Latin origin, and small words, to imitate prose for a model that reads letters."""
# ruff: noqa: SIM905 - a list of words reads better as text than as literals

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_model.data.words import Draw

PREFIXES = (
    *("", "", ""),
    *"a ab ad auto con com contra de dis e en ex in im inter mis multi per post pre pro re sub super trans un".split(),
    "under",
)
ROOTS = """
act apt cap cede ceiv cept cess clar clud creat cur dat dict duc duct equ fact fer fin fix flect form
fract fus gen grad graph gress ject jur lat lect leg liber licens log loc lum man mand mark mater medi mem merg
min mit mod mov norm not oper ord pact par pel pend plic port pos press prim prob prov put quest quir rect rupt
sci scrib script sec sent serv sid sign sist solv son spec spect spir stat struct sum tact tain tect temp tend
tent term text tort tract turn us util vac val vari ven vent vers vid vis voc volv warrant
""".split()
SUFFIXES = (
    *("", "", "", "s"),
    *"able ably age al ally ance ant ary ate ated ates ating ation ations ed ence ent er ers es ful ible ic".split(),
    *"ical ics ify ing ion ions ise ism ist ity ive ization ized izing less ly ment ments ness or ory ous ual".split(),
    "ure",
)
SMALL_WORDS = """
the the the a a an of of of and and to to in in is are was be been that this these it its for as with on
by or not from at but if any all can may shall will must should has have had do does no their they you your we our
he she his her him i my me who which what when where how why than then so such only other more most some each both
into over under between without within because about after before also just very there here while
""".split()


def learned_word(draw: Draw) -> str:
    """Return a word made as English makes words of Latin: `construction`, `unportable`, `intervers`."""
    return draw.allowed(lambda: draw.choice(PREFIXES) + draw.choice(ROOTS) + draw.choice(SUFFIXES))
