"""Random text of all kinds: sentences, words, other scripts, lists, markup, numbers. None of it means anything.

Real words are those of `data.words`; the words of other languages are invented, with the letters of a script.
"""

from __future__ import annotations

import string
import textwrap
from typing import TYPE_CHECKING

from tiny_model.data.word_parts import SMALL_WORDS, learned_word
from tiny_model.data.words import JOINED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_model.data.words import Draw

# Code points of letters that other languages are written with.
ALPHABETS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((0x0391, 0x03A1), (0x03B1, 0x03CE)),  # Greek
    ((0x0410, 0x044F), (0x0430, 0x044F), (0x0430, 0x045F)),  # Cyrillic
    ((0x0561, 0x0587),),  # Armenian
    ((0x05D0, 0x05EA),),  # Hebrew
    ((0x0621, 0x064A),),  # Arabic
    ((0x0671, 0x06D3), (0x0621, 0x064A)),  # Persian, Urdu
    ((0x0905, 0x0939), (0x093E, 0x094D)),  # Devanagari
    ((0x0985, 0x09B9), (0x09BE, 0x09CD)),  # Bengali
    ((0x0A85, 0x0AB9), (0x0ABE, 0x0ACD)),  # Gujarati
    ((0x0B85, 0x0BB9), (0x0BBE, 0x0BCD)),  # Tamil
    ((0x0C05, 0x0C39), (0x0C3E, 0x0C4D)),  # Telugu
    ((0x0C85, 0x0CB9), (0x0CBE, 0x0CCD)),  # Kannada
    ((0x0E01, 0x0E2E), (0x0E30, 0x0E4C)),  # Thai
    ((0x0E81, 0x0EAE), (0x0EB0, 0x0EBD)),  # Lao
    ((0x0F40, 0x0F6C), (0x0F71, 0x0F7D)),  # Tibetan
    ((0x1000, 0x1021), (0x102B, 0x103E)),  # Burmese
    ((0x10D0, 0x10F0),),  # Georgian
    ((0x1200, 0x1248),),  # Ethiopic
    ((0x1780, 0x17A2), (0x17B6, 0x17D2)),  # Khmer
    ((0x3042, 0x3093),),  # hiragana
    ((0x30A2, 0x30F3),),  # katakana
    ((0x3042, 0x3093), (0x4E00, 0x9FA5)),  # Japanese
    ((0x4E00, 0x9FA5),),  # Chinese
    ((0x4E00, 0x5FFF),),
    ((0xAC00, 0xD7A3),),  # Korean
)
MARKED = (
    *(
        "({})",
        '"{}"',
        "'{}'",
        "`{}`",
        "[{}]",
        "<{}>",
        "*{}*",
        "**{}**",
        "{}'s",
        "{}/{}",
        "{}.{}",
        "{}_{}",
        "{}()",
        "({}",
    ),
    *(
        "https://{}.org/{}",
        "{}@{}.com",
        "{}.txt",
        "{}%",
        "${}",
        "v{}.{}",
        "#{}",
        "{}-{}",
        "{}:{}",
        "(c) {}",
        "--{}",
        "--",
    ),
)
SPACELESS_FROM = 0x3000
ENDS = {0x0900: ("।", "?", "।"), 0x3000: ("。", "？", "！"), 0x0600: (".", "؟", "!")}  # noqa: RUF001 - of other scripts
ACCENTED = "áàâäãåæāăąçćčďđéèêëēėęěğíìîïīįıķĺľłñńňóòôöõøőœŕřśšşßťúùûüūůűųýÿžźżþðạảấầẩậắặẹẻếềệỉịọốồộớợụứừựỳỵ"
EMOJI_FROM, EMOJI_TO = 0x1F300, 0x1F6C5


def many(draw: Draw, make: Callable[[], str], fewest: int, most: int, between: str = " ") -> str:
    """Return some results of `make`, joined."""
    return between.join(make() for _ in range(draw.rng.randint(fewest, most)))


def cut(draw: Draw, text: str) -> str:
    """Return a part of a text that begins and ends anywhere."""
    start = draw.rng.randrange(len(text)) if draw.chance(0.6) else 0
    return text[start:] if draw.chance(0.5) else text[start : draw.rng.randint(start + 1, len(text))]


def any_word(draw: Draw) -> str:
    """Return a word in any case, a real one or an invented one, sometimes two in one or with an ending."""
    if draw.chance(0.3):
        return learned_word(draw)
    word = draw.word()
    kind = draw.rng.random()
    if kind < 0.25:
        word += draw.choice(("s", "ed", "ing", "er", "ly", "tion", "ness", "able", "ment", "ous", "ity", "ism"))
    elif kind < 0.32:
        word = f"{word}-{draw.word()}"
    elif kind < 0.38:
        word += draw.word()
    elif kind < 0.41:
        word += draw.choice(("'s", "n't", "'re", "'ll"))
    return word


def single_word(draw: Draw) -> str:
    """Return one word of any case, script and punctuation, or a part of one."""
    kind = draw.rng.random()
    if kind < 0.6:
        word = any_word(draw)
    elif kind < 0.7:
        word = "".join(draw.rng.choices(string.ascii_lowercase, k=draw.rng.randint(1, 12)))
    elif kind < 0.8:
        word = accented_word(draw)
    elif kind < 0.9:
        word = script_words(draw, 1)
    else:
        word = draw.code()
    while word.lower() in ("hello", "help", "yes", "no", "thank", "thanks"):
        word = draw.invented_word()
    kind = draw.rng.random()
    word = word.capitalize() if kind < 0.35 else word.upper() if kind < 0.47 else word
    return word + draw.rng.choices(("", "?", "!", ".", "...", ":", ",", "??"), (60, 10, 8, 10, 4, 4, 2, 2))[0]


def sentence(draw: Draw, fewest: int = 3, most: int = 16) -> str:
    """Return a sentence of English or invented words, which ends with a full stop or breaks off."""
    words = [any_word(draw) for _ in range(draw.rng.randint(fewest, most))]
    for index in range(len(words)):
        kind = draw.rng.random()
        if kind < 0.06:
            words[index] = draw.number(4)
        elif kind < 0.14:
            words[index] = words[index].capitalize()
        elif kind < 0.5:
            words[index] = draw.choice(SMALL_WORDS)
        elif kind < 0.55:
            words[index] = draw.choice(MARKED).format(words[index], draw.number(4))
        if index < len(words) - 1 and draw.chance(0.09):
            words[index] += draw.choice((",", ",", ";", " -", ":", '"', ")", ".", " &"))
    text = " ".join(words)
    if draw.chance(0.75):
        text = text[:1].upper() + text[1:]
    if draw.chance(0.06):
        text = f'"{text}"'
    return text + draw.rng.choices((".", "", "!", "?", "...", ",", " and", " the"), (60, 15, 6, 6, 3, 3, 3, 3))[0]


def paragraph(draw: Draw) -> str:
    """Return several sentences, sometimes on several lines."""
    between = draw.choice((" ", " ", " ", "  ", "\n", "\n\n"))
    text = many(draw, lambda: sentence(draw), 2, draw.rng.choices((4, 9, 40), (70, 27, 3))[0], between)
    if draw.chance(0.45):  # lines of one width, as files have them
        indent = draw.choice(("", "", " ", "  ", "    ", "# ", "// ", " * ", "> ", "\t"))
        text = textwrap.fill(text, draw.rng.randint(30, 90), initial_indent=indent, subsequent_indent=indent)
    return cut(draw, text) if draw.chance(0.3) else text


def accented_word(draw: Draw, letters: str = ACCENTED, share: float = 0.2) -> str:
    """Return an invented word of a language with Latin letters."""
    word = draw.invented_word()
    if draw.chance(0.3):
        word += draw.choice(("en", "os", "ar", "ski", "ung", "eau", "ção", "ier", "nya", "ida", "ul", "ja", "ek", "um"))
    return "".join(draw.choice(letters) if draw.chance(share) else letter for letter in word)


def accented_text(draw: Draw) -> str:
    """Return a sentence or question of a language with Latin letters that does not exist."""
    letters = "".join(draw.rng.sample(ACCENTED, draw.rng.randint(2, 9)))
    share = draw.rng.choice((0.03, 0.1, 0.2, 0.3))

    def word() -> str:
        if draw.chance(0.3):  # what stands for the short words of a language
            short = "".join(draw.rng.choices(string.ascii_lowercase, k=draw.rng.randint(1, 3)))
            return short + (draw.choice(letters) if draw.chance(0.2) else "")
        written = accented_word(draw, letters, share)
        return written.capitalize() if draw.chance(0.12) else written

    text = many(draw, word, 1, 12)
    text = text[:1].upper() + text[1:] if draw.chance(0.9) else text
    start, end = draw.choice((("", "."), ("", "?"), ("", "?"), ("", ""), ("", "!"), ("¿", "?"), ("¡", "!"), ("", " ?")))
    return start + text + end


def script_words(draw: Draw, words: int) -> str:
    """Return words, or what stands for them, in one script other than Latin."""
    ranges = draw.choice(ALPHABETS)
    start = ranges[-1][0]
    between = "" if start >= SPACELESS_FROM and draw.chance(0.8) else " "

    def word() -> str:
        length = draw.rng.randint(1, 4 if start >= SPACELESS_FROM else 9)
        return "".join(chr(draw.rng.randint(*draw.choice(ranges))) for _ in range(length))

    text = between.join(draw.allowed(word) for _ in range(words))
    return text.capitalize() if draw.chance(0.5) else text


def script_text(draw: Draw) -> str:
    """Return a sentence or question in a script other than Latin, sometimes mixed with Latin letters."""
    text = script_words(draw, draw.rng.randint(1, 10))
    first = ord(text[0])
    ends = next((ends for start, ends in sorted(ENDS.items(), reverse=True) if first >= start), (".", "?", "!"))
    if draw.chance(0.1):
        text += f" {draw.word()}"
    return text + draw.choice((*ends, "", "?", "."))


def symbols(draw: Draw) -> str:
    """Return punctuation, emoji or digits alone, in any number."""
    kind = draw.rng.random()
    if kind < 0.35:
        marks = draw.rng.choices(string.punctuation + " ", k=draw.rng.randint(1, 8))
        return draw.choice(marks) * draw.rng.randint(1, 6) if draw.chance(0.4) else "".join(marks)
    if kind < 0.65:
        one = chr(draw.rng.randint(EMOJI_FROM, EMOJI_TO)) if draw.chance(0.85) else draw.choice(JOINED)
        return one if draw.chance(0.5) else many(draw, lambda: chr(draw.rng.randint(EMOJI_FROM, EMOJI_TO)), 1, 6, "")
    if kind < 0.9:
        return many(draw, lambda: draw.number(8), 1, 6, draw.choice((" ", ", ", "\n", ".", "-", "/", ":")))
    return "".join(chr(draw.rng.choice((draw.rng.randint(0x20, 0x2FFF), draw.rng.randint(0xA0, 0xD7FF)))) for _ in "ab")


def repetition(draw: Draw) -> str:
    """Return something again and again: a line of marks under a title, a word, a line."""
    kind = draw.rng.random()
    if kind < 0.5:
        ruler = draw.choice("-=*#_~.+/") * draw.rng.randint(3, 60)
        title = draw.choice((sentence(draw, 1, 5).rstrip(".,"), draw.plain_phrase().title(), paragraph(draw)))
        shapes = ("{title}\n{ruler}", "{title}\n{ruler}", "{ruler}\n{title}\n{ruler}", "{ruler}", "{ruler}\n{title}")
        return draw.choice(shapes).format(title=title, ruler=ruler)
    unit = draw.choice((any_word, single_word, symbols, accented_text, script_text, sentence))(draw)
    return draw.choice((" ", " ", "\n", ", ", "")).join([unit] * draw.rng.randint(2, max(3, 60 // len(unit))))


def listing(draw: Draw) -> str:
    """Return a list, a table or a form of several lines."""
    mark = draw.choice(("- ", "* ", "{}. ", "{}) ", "• ", "[ ] ", "", "> ", "# "))
    table = draw.chance(0.25)

    def line(number: int) -> str:
        if table:
            return " | ".join(draw.code() for _ in range(3))
        text = draw.choice((draw.word(), draw.plain_phrase(), sentence(draw, 2, 7)))
        return mark.format(number) + (f"{draw.word().capitalize()}: {text}" if draw.chance(0.2) else text)

    head = f"{draw.plain_phrase().capitalize()}:\n" if draw.chance(0.4) else ""
    return head + "\n".join(line(number + 1) for number in range(draw.rng.randint(2, 7)))


def noise(draw: Draw) -> str:
    """Return characters of any script, in any order."""
    ranges = (*(range_ for alphabet in ALPHABETS for range_ in alphabet), (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x17F))
    some = draw.rng.choices(ranges, k=draw.rng.randint(1, 5))
    return "".join(chr(draw.rng.randint(*draw.choice(some))) for _ in range(draw.rng.randint(2, 40)))
