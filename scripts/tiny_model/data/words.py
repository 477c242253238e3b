"""Random words, names, phrases and numbers for the tiny model, and the rule that holds some back.

One rule splits everything: a text whose CRC-32 is divisible by eight is *held back*. Training never
draws one, the evaluation draws nothing else, and no list of exceptions has to be kept.
"""
# ruff: noqa: SIM905 - a list of 300 words reads better as text than as 300 literals

from __future__ import annotations

import json
import string
import zlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

T = TypeVar("T")

HELD_BACK_ONE_IN = 8

ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl qu sh st th tr x y".split()
VOWELS = "a e i o u ai ea ee io oo ou y".split()
CODAS = ["", "", "", "", *"b d g k l m n p r s t x z ck ld nd ng rt sh th".split()]

COMMON_WORDS = """
a about after air all and apple are as at back bad be bear bee big bird blue boat book boy bread bridge but
by cake can car cat chair child city clean cloud coat cold come cook corn cup dark day deep dog door down
dream drink drum dry ear earth eat egg eye face fall far farm fast field fire fish floor flower fly fog food
foot forest fox friend from full game garden girl give go gold good grass green hand happy hat have head
heart hello help hill home horse hot house i ice in is island it jump key king kite lake lamp leaf letter
light lion long look love make map me milk moon more mountain mouse music my name near new night no north
not nut of oil old on one open orange our paper park peace pen petal phone picture plant play pond queen
quick quiet rain red rice ring river road rock roof room rose run sad salt sand sea see seed server shell
ship shoe shop sing sister sky sleep slow small snow soft song soup south spoon spring star stone storm
story street sugar summer sun swarm sweet table tall tea tell that the there thin this time to tower town
train tree two under up us very walk wall warm was water we west wet wheel white who wind window winter with
wolf wood word world year yellow yes you young zebra
""".split()

FUNCTION_WORDS = frozenset(
    """a about after all and are as at be by from had have i in is it me my no not of on one our that the there this
    to two under up us very we who with yes you your""".split()
)

COMMON_NAMES = """
Ada Adam Aisha Alan Alice Amir Ana Anna Anton Ben Bob Carla Carlos Chen Chloe Clara Daniel David Diego Elena
Emma Eric Eva Fatima Felix Finn Grace Hana Hugo Ibrahim Ines Ingrid Ivan Jack James Jan Jane John Jonas
Julia Karim Kate Kofi Lars Laura Leo Lily Linda Liu Lucas Lucy Maria Mark Mary Maya Mia Mohamed Nadia Nina
Noah Nora Olga Oliver Omar Oscar Paul Peter Priya Rosa Sam Sara Sofia Sven Tariq Thomas Tim Tom Vera Victor
Wei Yuki Zara Zoe
""".split()

# Code points that the copying task draws from: a byte-level model has to copy 2 to 4 bytes for each.
UNICODE_RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "emoji": (
        (0x1F300, 0x1F320),
        (0x1F330, 0x1F393),
        (0x1F400, 0x1F4FC),
        (0x1F600, 0x1F64F),
        (0x1F680, 0x1F6C5),
    ),
    "cjk": ((0x4E00, 0x9FA5), (0x4E00, 0x5FFF), (0x3042, 0x3093), (0x30A2, 0x30F3), (0xAC00, 0xD7A3)),
    "cyrillic": ((0x0410, 0x044F),),
    "greek": ((0x0391, 0x03A1), (0x03B1, 0x03C9)),
    "accents": ((0x00C0, 0x00D6), (0x00D8, 0x00F6), (0x00F8, 0x017E)),
    "other": ((0x05D0, 0x05EA), (0x0621, 0x064A), (0x0905, 0x0939), (0x2190, 0x21FF), (0x2200, 0x22FF)),
}
# Scripts of single values: a share, and the code points, of which one word may take several lines.
SCRIPTS: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "Chinese": (24, ((0x4E00, 0x9FA5),)),
    "hiragana": (8, ((0x3042, 0x3093),)),
    "katakana": (6, ((0x30A2, 0x30F3),)),
    "Japanese": (10, ((0x3042, 0x3093), (0x4E00, 0x9FA5), (0x30A2, 0x30F3))),
    "Korean": (4, ((0xAC00, 0xD7A3),)),
    "Cyrillic": (14, ((0x0430, 0x044F),)),
    "Greek": (11, ((0x03B1, 0x03C9), (0x03AC, 0x03AF))),
    "Arabic": (11, ((0x0627, 0x063A), (0x0641, 0x064A))),
    "emoji": (12, UNICODE_RANGES["emoji"]),
}
JOINED = ("👩‍🚀", "👨‍👩‍👧", "🏳️‍🌈", "👍🏽", "❤️", "e\u0301", "n\u0303", "🇫🇷", "🇯🇵", "🧑‍💻")


def is_held_back(text: str) -> bool:
    """Whether `text` belongs to the evaluation only.

    Args:
        text: a word, name, number, or the written form of a task such as `3+4`.

    Returns:
        True for about one text in eight, always the same ones.
    """
    return zlib.crc32(text.encode()) % HELD_BACK_ONE_IN == 0


class Draw:
    """A seeded source of words that stays on one side of the held-back split.

    Args:
        rng: the source of randomness.
        held_back: draw only held-back texts (for evaluation) instead of only the others (for training).
        new_wordings: draw only held-back wordings; None does with held-back texts only.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        held_back: bool = False,
        new_wordings: bool | None = None,
    ) -> None:
        """Draw from `rng`, on the side of the split that `held_back` names."""
        self.rng = rng
        self.held_back = held_back
        self.new_wordings = held_back if new_wordings is None else new_wordings

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.rng.random() < probability

    def choice(self, options: Sequence[T]) -> T:
        """Return one of `options`, each as likely as the others."""
        return self.rng.choice(options)

    def allowed(self, make: Callable[[], T], written: Callable[[T], str] = str) -> T:
        """Call `make` until its result is on this side of the split.

        Args:
            make: draws a candidate.
            written: how the candidate is written when the split is decided.

        Returns:
            The first candidate on this side.
        """
        while True:
            candidate = make()
            if is_held_back(written(candidate)) == self.held_back:
                return candidate

    def wording(self, options: Sequence[str]) -> str:
        """Return one of the wordings of a question; the last of several is the held-back one."""
        if len(options) == 1:
            return options[0]
        return options[-1] if self.new_wordings else self.choice(options[:-1])

    def invented_word(self) -> str:
        """Return a pronounceable lower-case word without a meaning."""
        return self.allowed(self._syllables)

    def word(self) -> str:
        """Return a lower-case word, a real one or an invented one."""
        if self.chance(0.4):
            return self.allowed(lambda: self.choice(COMMON_WORDS))
        return self.invented_word()

    def noun(self) -> str:
        """Return a word of at least three letters for the name of a tool or a parameter."""
        word = self.word()
        while len(word) < 3 or word in FUNCTION_WORDS:
            word = self.word()
        return word

    def name(self) -> str:
        """Return the name of a person, sometimes in two parts, with accents or in lower case."""
        first = self._one_name()
        if self.chance(0.08):
            return f"{first} {self._one_name()}"
        return first.lower() if self.chance(0.06) else first

    def number(self, most_digits: int = 5) -> str:
        """Return an integer of 1 to `most_digits` digits as text."""
        return self.allowed(lambda: str(self.rng.randrange(10 ** self.rng.randint(1, most_digits))))

    def code(self) -> str:
        """Return a value worth remembering: a number, a word, or a mix such as `KX-482`."""
        kind = self.rng.random()
        if kind < 0.35:
            return self.number(6)
        if kind < 0.75:
            return self.word()
        return self.allowed(
            lambda: "".join(self.rng.choices(string.ascii_uppercase, k=2)) + f"-{self.rng.randrange(1000)}"
        )

    def characters(self) -> str:
        """Return 1 to 5 random characters of one script other than plain Latin."""
        if self.chance(0.1):
            return self.choice(JOINED)
        ranges = UNICODE_RANGES[self.choice(tuple(UNICODE_RANGES))]

        def make() -> str:
            low, high = self.choice(ranges)
            return "".join(chr(self.rng.randint(low, high)) for _ in range(self.rng.randint(1, 5)))

        return self.allowed(make)

    def script_word(self) -> str:
        """Return a word of 1 to 7 characters of one script other than Latin, as names and words are written."""

        def make() -> str:
            shares, scripts = zip(*SCRIPTS.values(), strict=True)
            ranges = self.rng.choices(scripts, shares)[0]
            length = self.rng.choices(range(1, 8), (1, 4, 4, 4, 3, 2, 1))[0]
            word = "".join(chr(self.rng.randint(*self.choice(ranges))) for _ in range(length))
            return word.capitalize() if self.chance(0.6) else word

        return self.allowed(make)

    def other_script(self) -> str:
        """Return one or two words with characters beyond Latin letters."""
        kind = self.rng.random()
        if kind < 0.58:
            return self.script_word()
        if kind < 0.70:
            return f"{self.script_word()} {self.script_word()}"
        if kind < 0.77:
            return self.characters()
        parts = [self.script_word(), self.word().capitalize()]
        self.rng.shuffle(parts)
        return (" " if self.chance(0.7) else "").join(parts)

    def plain_phrase(self) -> str:
        """Return 2 to 5 words as they stand inside a sentence."""
        words = [self.word() for _ in range(self.rng.randint(2, 5))]
        if self.chance(0.3):
            words[0] = self.choice(("a", "the", "an old", "my"))
        return " ".join(word.capitalize() if self.chance(0.08) else word for word in words)

    def phrase(self, most_words: int = 8) -> str:
        """Return 1 to `most_words` words with capitals, digits and punctuation."""
        words = [self._phrase_item() for _ in range(self.rng.randint(1, most_words))]
        return self._finished(words)

    def unicode_phrase(self, most_words: int = 5) -> str:
        """Return a short phrase of which about half the words are emoji or other scripts."""
        count = self.rng.randint(1, most_words)
        words = [self.characters() if self.chance(0.5) else self._phrase_item() for _ in range(count)]
        words[self.rng.randrange(count)] = self.characters()
        return self._finished(words)

    def json_text(self) -> str:
        """Return a small JSON object with one to three random members."""
        value: dict[str, str | int] = {}
        for _ in range(self.rng.randint(1, 3)):
            value[self.word()] = self.word() if self.chance(0.6) else int(self.number(3))
        return json.dumps(value)

    def _syllables(self) -> str:
        count = self.rng.choices((1, 2, 3), (2, 5, 2))[0]
        parts = [self.choice(ONSETS) + self.choice(VOWELS) for _ in range(count)]
        return "".join(parts) + self.choice(CODAS)

    def _one_name(self) -> str:
        if self.chance(0.25):
            return self.allowed(lambda: self.choice(COMMON_NAMES))
        name = self.allowed(lambda: self._syllables().capitalize())
        if self.chance(0.06):
            low, high = self.choice(UNICODE_RANGES["accents"])
            return name + chr(self.rng.randint(low, high))
        return name

    def _phrase_item(self) -> str:
        kind = self.rng.random()
        if kind < 0.12:
            return self.number()
        if kind < 0.18:
            return f"{self.word()}-{self.word()}"
        word = self.word()
        if kind < 0.30:
            return word.capitalize()
        return word.upper() if kind < 0.36 else word

    def _finished(self, words: list[str]) -> str:
        for index in range(len(words) - 1):
            if self.chance(0.1):
                words[index] += self.choice((",", ",", ";", ":", " -", "!"))
        if self.chance(0.25):
            words[0] = words[0][:1].upper() + words[0][1:]
        ending = self.choice((".", "!", "?", "...")) if self.chance(0.35) else ""
        return " ".join(words) + ending
