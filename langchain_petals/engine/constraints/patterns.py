r"""Hints for endings: the shortest texts that complete what a grammar's regular expressions have begun.

A parser tells which bytes may come next. Inside `.*\.pdf` any byte may come next, so the parser does not show that
`.pdf` leads to the end. The expression does: each position in it has a shortest text that completes it, and a text
inside the expression is at one of these positions. Hints may be wrong, since Python's `re` reads the expressions and
dialects differ. So the parser checks each hint.
"""

from __future__ import annotations

import json
import re
import string
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    from re import _compiler as sre_compile  # type: ignore[attr-defined,unused-ignore]
    from re import _constants as sre  # type: ignore[attr-defined,unused-ignore]
    from re import _parser as sre_parse  # type: ignore[attr-defined,unused-ignore]
except ImportError:  # Python 3.10
    import sre_compile
    import sre_constants as sre
    import sre_parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LONGEST = 100  # characters of a hint
_POSITIONS = 200  # hints for each expression

_CHARACTERS = "0aA" + string.digits + string.ascii_letters + string.punctuation + " \t\n"

# Syntax that Python writes differently. One character represents a Unicode class.
_DIALECTS = re.compile(r"\\\\|\(\?<(?=[A-Za-z_])|\\z|\\[pP](?:\{\^?(?P<long>\w+)[^}]*\}|(?P<short>\w))")
_UNICODE = {"Lu": "A", "L": "a", "N": "0", "P": "-", "S": "+", "Z": " "}

_FORMATS = {"email": r"\w+@\w+"}  # formats of llguidance whose end cannot be found byte by byte

_LARK = re.compile(
    r'(?P<literal>"(?:\\.|[^"\\\n])*")|//[^\n]*'
    r"|(?P<expression>/(?:\\.|[^/\\\n])+/)(?P<flags>[imsux]*)|(?P<json>%json\s*)"
)


class Hints(NamedTuple):
    """Texts that may complete what has begun, the shortest first."""

    strings: list[bytes]  # complete a JSON string; with the closing quote
    texts: list[bytes]  # complete a text that is a single regular expression
    parts: list[bytes]  # complete a part of a text: whole expressions, and literals of a Lark grammar


def hints(grammar: str) -> Hints:
    """Return hints from the regular expressions of a grammar in llguidance's format."""
    found: dict[str, set[str]] = {"literal": set(), "string": set(), "text": set(), "terminal": set()}
    try:
        for kind, expression in _expressions(grammar):
            found[kind] |= {expression} if kind == "literal" else endings(expression)
    except ValueError:  # JSON that Python does not read: no hints from there on
        pass
    strings = {json.dumps(each, ensure_ascii=False)[1:-1] for each in found["string"]}
    parts = strings | found["text"] | found["terminal"]
    if found["terminal"]:  # a terminal may consist of expressions and literals
        parts |= found["literal"]
    parts -= {each[start:] for each in parts for start in range(1, len(each))}
    return Hints(*map(_sorted, ((f'{each}"' for each in strings if each), found["text"], parts)))


def _sorted(texts: Iterable[str]) -> list[bytes]:
    encoded = {each.encode(errors="ignore") for each in texts} - {b""}
    return sorted(encoded, key=lambda each: (len(each), each))


def endings(pattern: str) -> set[str]:
    r"""Return the shortest text that completes a match from each position; none if the expression is unreadable.

    >>> from langchain_petals.engine.constraints.patterns import endings
    >>> sorted(endings(r"^[a-z]+\.(jpg|png)$"), key=lambda each: (len(each), each))
    ['', 'g', 'ng', 'pg', 'jpg', 'png', '.jpg', 'a.jpg']
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about syntax that future versions of Python may read differently
            tree = sre_parse.parse(_DIALECTS.sub(_in_python, pattern))
        found = {""}
        _walk(tree, "", found)
    except (re.error, RecursionError, OverflowError, ValueError):
        return set()
    else:
        return found


def _in_python(found: re.Match[str]) -> str:
    text = found[0]
    if text in ("\\\\", "\\z"):
        return text.upper()
    if text == "(?<":
        return "(?P<"
    name = found["long"] or found["short"]
    return re.escape(_UNICODE.get(name, _UNICODE.get(name[0], "a"))) if text[1] == "p" else "_"


def _walk(sequence: Any, rest: str, found: set[str]) -> str:
    """Return the shortest text of a sequence and then `rest`; add the one from each position inside to `found`."""
    for i in reversed(range(len(sequence))):
        rest = _before(sequence[i : i + 1], rest, found)
        if len(rest) > _LONGEST or len(found) > _POSITIONS:
            break
        found.add(rest)
    return rest


def _before(item: Any, rest: str, found: set[str]) -> str:
    """Return the shortest text of a sequence of one item and then `rest`."""
    [(kind, detail)] = item
    if kind is sre.BRANCH:
        return min((_walk(each, rest, found) for each in detail[1]), key=len)
    if kind is sre.SUBPATTERN:
        return _walk(detail[-1], rest, found)
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        least, _, repeated = detail
        once = _walk(repeated, rest, found)
        if least == 0:
            return rest
        while least > 1 and rest != once and len(once) <= _LONGEST and len(found) <= _POSITIONS:
            rest, once, least = once, _walk(repeated, once, found), least - 1
        return once
    return _character(item) + rest


def _character(item: Any) -> str:
    """Return a character that the item matches; nothing if it matches none, or not a single one."""
    [(kind, detail)] = item
    if kind is sre.LITERAL:
        return chr(detail)
    if kind not in (sre.ANY, sre.NOT_LITERAL, sre.IN):
        return ""
    members = detail if kind is sre.IN else ()
    own = [chr(what if how is sre.LITERAL else what[0]) for how, what in members if how in (sre.LITERAL, sre.RANGE)]
    return next(filter(sre_compile.compile(item).match, (*_CHARACTERS, *own)), "")


def _expressions(grammar: str) -> Iterator[tuple[str, str]]:
    """Yield the regular expressions and literals of a grammar, as pairs of a kind and a text."""
    if grammar.startswith("{"):  # how llguidance wraps a regular expression
        content, end = json.JSONDecoder().raw_decode(grammar)
        for each in content["grammars"]:
            for kind, expression in _expressions(each["lark_grammar"] or ""):
                yield {"terminal": "text"}.get(kind, kind), expression
        grammar = grammar[end:]
    at = 0
    while match := _LARK.search(grammar, at):
        at = match.end()
        if match["json"]:
            schema, at = json.JSONDecoder().raw_decode(grammar, at)
            yield from (("string", each) for each in _patterns(schema))
        elif match["expression"]:
            flags = match["flags"].replace("u", "")
            yield "terminal", (f"(?{flags})" if flags else "") + match["expression"][1:-1].replace("\\/", "/")
        elif match["literal"]:
            yield "literal", json.loads(match["literal"])


def _patterns(schema: Any) -> Iterator[str]:
    """Yield the patterns of the strings and keys of a schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from _patterns(each)
    elif isinstance(schema, dict):
        keys, named = schema.get("patternProperties"), _FORMATS.get(str(schema.get("format")))
        found = [schema.get("pattern"), named, *(keys if isinstance(keys, dict) else ())]
        yield from (each for each in found if isinstance(each, str))
        for each in schema.values():
            yield from _patterns(each)
