"""A swarm as a picture: one row for each server, with its span as a bar over all blocks.

What colours say can be seen without them: gaps and servers without an answer have characters of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.text import Text

from langchain_petals.cli.swarms.status_verdict import free_cache, ranges_of, span_text, verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from langchain_petals.cli.swarms.status_verdict import View
    from langchain_petals.engine.network import DescribedServer, Survey

_LEAST_BAR, _WIDEST_BLOCK = 16, 12  # cells
_LONGEST_VERSION = 14  # cells
_LONGEST_NAMES = {100: 20, 0: 12}  # cells, by the least width of the picture
_MOST_COPIES = 9  # that one character shows
_NOBODY = "nobody"


@dataclass(frozen=True)
class _Marks:
    """The characters of bars."""

    whole: str = "█"
    first_half: str = "▌"
    second_half: str = "▐"
    joining: str = "░"
    silent: str = "x"
    gap: str = "!"
    nothing: str = "·"
    cut: str = "…"


_ASCII = _Marks("#", "#", "#", "-", "x", "!", ".", "~")


@dataclass(frozen=True)
class _Row:
    """A row: a server, or blocks that nobody holds."""

    span: range
    mark: str
    style: str
    cells: Mapping[str, str]  # by column
    problem: str = ""  # style of the columns

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


_COLUMNS = ("server", "blocks", "tok/s", "cache", "ping", "petals", "via")
_DROPPED = ("via", "petals", "tok/s", "cache")  # where there is no room, in this order
_LEFT = {"server", "petals", "via"}  # columns whose cells begin at the left


def picture(view: View, console: Console, most_lines: int | None = None) -> Group:
    """Return a picture that fits a console.

    Args:
        view: The model.
        console: Its width is the picture's.
        most_lines: Leave out rows so that the picture has no more lines; None for all rows.
    """
    survey = view.survey
    marks = _Marks() if console.encoding.startswith("utf") else _ASCII
    verdict = _verdict_lines(view, console)
    rows = _rows(survey, marks, console.width)
    if most_lines is not None:
        rows = _fitting(rows, max(most_lines - len(verdict) - 5, 1))
    table = [Text(), *_table(rows, survey, marks, console.width)] if rows else []
    return Group(_title(view), *table, Text(), *verdict)


def _title(view: View) -> Text:
    survey = view.survey
    online = len(survey.servers)
    where = "a private swarm" if view.initial_peers else "the public swarm"
    text = f"{survey.blocks} blocks, {online} server{'' if online == 1 else 's'}, on {where}"
    return Text.assemble((survey.prefix, "bold"), f": {text}")


def _verdict_lines(view: View, console: Console) -> list[Text]:
    verdict = verdict_of(view)
    head = ("Usable. ", "bold green") if verdict.is_usable else ("Not usable. ", "bold red")
    text = Text.assemble(head, verdict.text)
    lines = list(text.wrap(console, console.width)) if console.is_terminal else [text]
    return [*lines, *([] if verdict.command is None else [Text(f"  {verdict.command}", style="bold")])]


def _rows(survey: Survey, marks: _Marks, width: int) -> list[_Row]:
    longest = next(cells for least, cells in _LONGEST_NAMES.items() if width >= least)
    rows = [_server_row(each, survey, marks, longest) for each in survey.servers]
    if survey.servers:
        for gap in ranges_of(survey.missing):
            cells = {"server": _NOBODY, "blocks": span_text(gap)}
            rows.append(_Row(gap, marks.gap, "bold red", cells, problem="bold red"))
    return sorted(rows, key=lambda row: row.span.start)


def _server_row(each: DescribedServer, survey: Survey, marks: _Marks, longest_name: int) -> _Row:
    server, answers = each.server, survey.answers(each)
    span = range(server.start, server.end)
    if each.is_joining:
        mark, style, ping = marks.joining, "yellow", "joining"
    elif not answers:
        mark, style, ping = marks.silent, "red", "no answer"
    else:
        mark, style, ping = marks.whole, "green", _ping(survey.round_trips.get(server.peer_id))
    cells = {
        "server": _cut(each.name or marks.cut + server.peer_id[-7:], longest_name, marks),
        "blocks": span_text(span),
        "tok/s": _number(each.throughput),
        "cache": _number(free_cache(server.cache_tokens_left, len(span))),
        "ping": ping,
        "petals": _cut(each.version or "?", _LONGEST_VERSION, marks),
        "via": {True: "relay", False: "direct", None: "?"}[each.uses_relay],
    }
    return _Row(span, mark, style, cells, problem="" if mark == marks.whole else style)


def _fitting(rows: list[_Row], most: int) -> list[_Row]:
    """Leave out servers without a problem, from the middle on, until the rows fit."""
    while len(rows) > most:
        calm = [number for number, row in enumerate(rows) if not row.problem] or list(range(len(rows)))
        del rows[calm[len(calm) // 2]]
    return rows


class _Table:
    """Lines of columns, with a bar after the second one; columns for which there is no room are left out."""

    def __init__(self, rows: Sequence[_Row], blocks: int, width: int) -> None:
        self._shown = list(_COLUMNS)
        for dropped in ("", *_DROPPED):
            self._shown = [name for name in self._shown if name != dropped]
            self._widths = {name: max(cell_len(name), *(cell_len(row[name]) for row in rows)) for name in self._shown}
            room = width - sum(self._widths.values()) - len(self._shown)
            if room >= _LEAST_BAR:
                break
        self.bar_cells = _bar_cells(blocks, max(room, 1))
        self._blocks = blocks

    def header(self) -> Text:
        """Return the names of the columns, and the numbers of the first and the last block."""
        axis = "0" if self._blocks == 1 else "0" + str(self._blocks - 1).rjust(len(self.bar_cells) - 1)
        bar = Text(set_cell_size(axis, len(self.bar_cells)), "dim")
        return self.line(dict(zip(_COLUMNS, _COLUMNS, strict=True)), bar, "dim")

    def line(self, cells: Mapping[str, str], bar: Text, style: str) -> Text:
        """Return a line: cells by the names of their columns, and a bar."""
        line = Text()
        for name in self._shown:
            cell, width = cells.get(name, ""), self._widths[name]
            padded = set_cell_size(cell, width) if name in _LEFT else " " * (width - cell_len(cell)) + cell
            line.append(padded + " ", style)
            if name == "blocks":
                line.append_text(bar)
                line.append(" ")
        line.rstrip()
        return line


def _table(rows: Sequence[_Row], survey: Survey, marks: _Marks, width: int) -> list[Text]:
    table = _Table(rows, survey.blocks, width)
    lines = [table.header()]
    lines += [table.line(row.cells, _bar(row, table.bar_cells, marks), row.problem) for row in rows]
    held = [0] * survey.blocks
    for each in survey.usable:
        for block in range(each.server.start, each.server.end):
            held[block] += 1
    copies, before = Text(), range(0)
    for cell in table.bar_cells:
        count = min(held[block] for block in cell)
        if not count:
            copies.append(marks.gap, "bold red")
        elif cell == before:  # a block of several cells has its number in the first one
            copies.append(" ")
        else:
            copies.append("+" if count > _MOST_COPIES else str(count), "dim")
        before = cell
    return [*lines, table.line({"server": "copies"}, copies, "dim")]


def _bar_cells(blocks: int, room: int) -> list[range]:
    """Return which blocks each cell of a bar stands for: several cells for a block, or several blocks for a cell."""
    if blocks <= room:
        per_block = min(room // blocks, _WIDEST_BLOCK)
        return [range(block, block + 1) for block in range(blocks) for _ in range(per_block)]
    borders = [blocks * cell // room for cell in range(room + 1)]
    return [range(borders[cell], borders[cell + 1]) for cell in range(room)]


def _bar(row: _Row, cells: Sequence[range], marks: _Marks) -> Text:
    bar = Text()
    for cell in cells:
        held = range(max(cell.start, row.span.start), min(cell.stop, row.span.stop))
        if not held:
            bar.append(marks.nothing, "dim")
        elif len(held) == len(cell) or row.mark != marks.whole:
            bar.append(row.mark, row.style)
        else:
            bar.append(marks.first_half if held.start == cell.start else marks.second_half, row.style)
    return bar


def _ping(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "?"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.0f}{unit}" if value < 1e13 else ">9999G"  # noqa: PLR2004
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"  # noqa: PLR2004


def _cut(text: str, width: int, marks: _Marks) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + marks.cut
