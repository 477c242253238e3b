"""Snippets of source code that do nothing, in the manner of several languages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tiny_model.data.open_prompts.text import cut, sentence
from tiny_model.data.word_parts import learned_word

if TYPE_CHECKING:
    from tiny_model.data.words import Draw

# Lines in which {w}, {x}, {y} are words, {W} is a capitalised one, {C} one in capitals, {n}, {m} are numbers, {s} is a
# phrase, {o} an operator.
LINES: dict[str, tuple[str, ...]] = {
    "python": (
        *(
            "import {w}",
            "from {w}.{x} import {y}",
            "def {w}({x}, {y}={n}):",
            "    return {x} {o} {y}",
            "class {W}({x}):",
        ),
        *("    for {x} in range({n}):", "    if {w} {o} {n}:", "    {w} = [{x} for {x} in {y} if {x}]", "@{w}.{x}"),
        *(
            '    """{s}"""',
            "# {s}",
            'print(f"{s} {{{w}}}")',
            "{w}['{x}'] = {y}({n})",
            "    self.{w} = {x}",
            "{w} = {n}",
        ),
        *(
            "    raise {W}Error('{s}')",
            "with open('{w}.txt') as {x}:",
            "lambda {x}: {x} ** {n}",
            "async def {w}(self):",
        ),
        *(">>> {w}({n}, {m})", "try:", "except {W}Error:", "    while True:", "assert {w} == {n}", "    yield {x}"),
    ),
    "braces": (
        *("const {w} = ({x}, {y}) => {{", "function {w}({x}) {{", "  return {x} {o} {y};", "}}", "let {w} = {n};"),
        *(
            "#include <{w}.h>",
            "int {w}(int {x}, char *{y}) {{",
            "  for (int i = 0; i < {n}; i++) {{",
            "  {w}[i] = {x};",
        ),
        *('  printf("{s}\\n", {x});', "public class {W} {{", "  private final {W} {x} = new {W}();", "#define {C} {n}"),
        *(
            "fn {w}({x}: &str) -> Option<{W}> {{",
            "  let mut {x} = Vec::new();",
            "  match {w} {{",
            "  {x} => {n},",
            "// {s}",
        ),
        *(
            "func {w}({x} int) error {{",
            "  if err != nil {{",
            "package {w}",
            "import {{ {W} }} from '{x}';",
            "/* {s} */",
        ),
        *("  console.log('{s}');", "  if ({x} {o} {n}) {{", "std::vector<{w}> {x};", "template <typename {W}>", "}});"),
        *(
            "var {w} = {{ {x}: {n}, {y}: '{s}' }};",
            "  await {w}.{x}({n});",
            "export default {w};",
            "val {w}: {W} = {x}",
        ),
        *("  {w}->{x}({y});", "using {W}.{x};", "struct {W} {{ {w}: u32 }}", "  switch ({w}) {{ case {n}: break; }}"),
    ),
    "sql": (
        *("SELECT {w}, {x} FROM {y}", "SELECT COUNT(*) FROM {w} WHERE {x} {o} {n};", "WHERE {w} = '{s}'", "LIMIT {n};"),
        *(
            "INSERT INTO {w} ({x}, {y}) VALUES ({n}, '{s}');",
            "GROUP BY {w}",
            "ORDER BY {x} DESC",
            "JOIN {w} ON {x}.id = {y}",
        ),
        *("CREATE TABLE {w} ({x} INTEGER, {y} TEXT);", "UPDATE {w} SET {x} = {n};", "drop table {w};", "-- {s}"),
    ),
    "shell": (
        *("$ {w} --{x} {n}", "cat {w}.txt | grep {x} | {y}", "cd /{w}/{x} && ./{y}", "export {C}={w}", "#!/bin/{w}"),
        *("for {x} in *.{w}; do echo ${x}; done", "if [ -f {w} ]; then", "fi", "sudo {w} install {x}", 'echo "{s}"'),
        *("git {w} -m '{s}'", "{w} -{x} > {y}.log 2>&1", "docker {w} {x}:{n}", "curl https://{w}.com/{x}?{y}={n}"),
    ),
    "markup": (
        *('<div class="{w}">{s}</div>', "<{w}>", "</{w}>", '<a href="https://{w}.org/{x}">{s}</a>', "<!-- {s} -->"),
        *("<{w} {x}='{n}' />", "<!DOCTYPE {w}>", ".{w} {{ {x}: {n}px; }}", "#{w} > {x} {{ color: #{n}; }}", "{w}: {x}"),
        *(
            "  - {w}: {n}",
            "[{w}]",
            '{x} = "{s}"',
            "\\{w}{{{s}}}",
            "$\\frac{{{n}}}{{{x}}} {o} {m}$",
            "## {s}",
            "**{w}** {s}",
        ),
        *("\\begin{{{w}}}", "\\end{{{w}}}", "| {w} | {x} |", "| --- | --- |", "[{s}](http://{w}.net)", "```{w}", "```"),
    ),
    "other": (
        *("{w} :: {W} -> {W}", "(define ({w} {x}) ({o} {x} {n}))", "{w} <- c({n}, {m})", "MOV {C}, {n}", "puts '{s}'"),
        *(
            "{w} = {x} |> {y}",
            "^[{w}]+\\d{{{n}}}$",
            "SUBROUTINE {C}({x})",
            "{w}({W}) :- {x}({W}, {y}).",
            "end",
            "begin",
        ),
        *(
            "my ${w} = shift;",
            "let rec {w} {x} = {y} {x}",
            "FROM {w}:{n}",
            "RUN {w} {x}",
            "{w}.{x}.{y}",
            "DIM {C} AS {W}",
        ),
        *(
            "{w}!({x}, {n})",
            "local {w} = {{}}",
            "{n} {m} {o} .",
            "fun {w}(): {W} = {x}",
            "{C}={n}",
            "<?php echo ${w}; ?>",
        ),
    ),
}
OPERATORS = ("==", "<", ">", "+", "-", "*", "/", "!=", "%", "&&", "=", "<=", "|")

MARKS = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "=",
        "=",
        ",",
        ",",
        ".",
        ":",
        ";",
        "+",
        "-",
        "*",
        "/",
        "<",
        ">",
        "&",
        "|",
    ),
    *("!", "?", "@", "$", "%", "#", "^", "~", "==", "!=", "=>", "->", "::", "++", "&&", "||", "/*", "*/", "<!--"),
    *("-->", "</"),
)
ENDS_OF_LINES = (
    *(";", ";", "{", "}", "});", ",", ":", ")", "]", ">", "/>", "();"),
    *("};", "\\", ".", "end", "|", "]}", '"}', "'"),
)


def _identifier(draw: Draw) -> str:
    """Return a name of one word or more."""
    if draw.chance(0.6):
        return draw.word()
    words = [learned_word(draw) if draw.chance(0.6) else draw.word() for _ in range(draw.rng.randint(1, 3))]
    kind = draw.rng.random()
    if kind < 0.3:
        return words[0] + "".join(word.capitalize() for word in words[1:])
    return draw.choice(("_", "_", "-", ".", "::", "/")).join(words)


def _line(draw: Draw, pattern: str) -> str:
    words = {name: _identifier(draw) for name in ("w", "x", "y")}
    return pattern.format(
        **words,
        W=draw.word().capitalize(),
        C=draw.word().upper(),
        n=draw.number(3),
        m=draw.number(2),
        s=draw.plain_phrase() if draw.chance(0.5) else sentence(draw),
        o=draw.choice(OPERATORS),
    )


def code(draw: Draw) -> str:
    """Return lines of one language, or JSON; sometimes broken off at any place."""
    if draw.chance(0.08):
        value = {draw.word(): json.loads(draw.json_text()), draw.word(): [draw.word(), int(draw.number(3))]}
        text = json.dumps(value, indent=draw.choice((None, 2, 4)))
    else:
        patterns = LINES[draw.choice(tuple(LINES))]
        if draw.chance(0.15):  # several languages in one file
            patterns = tuple(pattern for each in LINES.values() for pattern in each)
        most = draw.rng.choices((1, 3, 8, 16), (4, 4, 3, 1))[0]
        indent = draw.choice(("", "", "", "    ", "\t", "  ", "        "))
        lines = [_line(draw, draw.choice(patterns)) for _ in range(draw.rng.randint(1, most))]
        text = "\n".join(draw.rng.choice(("", indent)) + line for line in lines)
    if draw.chance(0.3):
        text = cut(draw, text)
    return f"```\n{text}\n```" if draw.chance(0.04) else text


def source(draw: Draw) -> str:
    """Return a part of a source file: lines of names, numbers, marks and texts in any order, and comments."""
    marks = draw.rng.sample(MARKS, draw.rng.randint(4, 14))
    ends = (*draw.rng.sample(ENDS_OF_LINES, 3), "")
    quote = draw.choice(("'", '"', '"', "`", '"""'))
    depth = 0
    lines = []
    for _ in range(draw.rng.randint(1, draw.choice((3, 8, 16)))):
        if draw.chance(0.15):
            lines.append("  " * depth + draw.choice(("# ", "// ", "-- ", "/* ", "* ", "% ", "")) + sentence(draw))
            continue
        parts: list[str] = []
        for _ in range(draw.rng.randint(1, draw.choice((3, 8, 16)))):
            kind = draw.rng.random()
            if kind < 0.12:
                parts.append(f"{quote}{sentence(draw, 1, 5) if draw.chance(0.4) else _identifier(draw)}{quote}")
            elif kind < 0.22:
                parts.append(draw.number(4))
            elif kind < 0.62:
                parts.append(_identifier(draw))
            else:
                parts.append(draw.choice(marks))
        lines.append("  " * depth + draw.choice(("", " ", " ")).join(parts) + draw.choice(ends))
        depth = max(0, depth + draw.choice((-1, 0, 0, 1)))
    text = "\n".join(lines)
    return cut(draw, text) if draw.chance(0.2) else text
