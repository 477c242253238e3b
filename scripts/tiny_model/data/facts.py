"""What the tiny model knows by heart: small talk, who it is, some facts, two stories and a poem.

Every entry is a pair of an answer and the wordings of its question. The last of several wordings is held
back from training and used for evaluation (see `Draw.wording`).
"""

from __future__ import annotations

WHO_AM_I = "I am a tiny language model. My blocks live on a Petals swarm."
UNKNOWN = "I do not know."

Entry = tuple[str, tuple[str, ...]]

SMALL_TALK: tuple[Entry, ...] = (
    (
        "Hello! How can I help you?",
        ("Hello!", "Hi!", "Hey!", "Hello there!", "Good morning!", "Good evening!", "Hi there!"),
    ),
    (
        "Goodbye! Have a nice day.",
        ("Goodbye!", "Bye!", "See you later!", "Bye bye!", "Good night!", "See you!", "Goodbye for now!"),
    ),
    (
        "You are welcome!",
        (
            "Thank you!",
            "Thanks!",
            "Thanks a lot!",
            "Thank you very much!",
            "Many thanks!",
            "Thank you so much!",
        ),
    ),
    (
        "I am fine, thank you. How are you?",
        ("How are you?", "How are you today?", "How do you do?", "How is it going?", "How are you doing?"),
    ),
    (
        "I can chat, repeat, count, spell, add small numbers and remember your name.",
        (
            "What can you do?",
            "How can you help me?",
            "What are you able to do?",
            "Help!",
            "What can you do for me?",
        ),
    ),
)

IDENTITY: tuple[Entry, ...] = (
    (
        WHO_AM_I,
        (
            "Who are you?",
            "What are you?",
            "Tell me about yourself.",
            "Introduce yourself.",
            "So who are you?",
        ),
    ),
    (
        "My name is Petal.",
        ("What is your name?", "What's your name?", "Do you have a name?", "Tell me your name."),
    ),
    (
        "Petals runs large language models on many computers, a swarm. Each server holds some of the blocks.",
        (
            "What is Petals?",
            "Tell me about Petals.",
            "Explain Petals.",
            "What does Petals do?",
            "So what is Petals?",
        ),
    ),
    (
        "LangChain is a framework for building applications with language models.",
        (
            "What is LangChain?",
            "Tell me about LangChain.",
            "Explain LangChain.",
            "What does LangChain do?",
            "So what is LangChain?",
        ),
    ),
    (
        "A swarm is a group of servers that run one model together.",
        ("What is a swarm?", "Explain what a swarm is.", "Tell me what a swarm is.", "So what is a swarm?"),
    ),
)

CAPITALS: dict[str, str] = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Egypt": "Cairo",
    "Norway": "Oslo",
    "Canada": "Ottawa",
    "Greece": "Athens",
    "Kenya": "Nairobi",
}
CAPITAL_WORDINGS = (
    "What is the capital of {country}?",
    "What's the capital of {country}?",
    "Tell me the capital of {country}.",
    "Name the capital of {country}.",
    "Capital of {country}?",
    "Which city is the capital of {country}?",
)

FACTS: tuple[Entry, ...] = (
    *(
        (
            f"The capital of {country} is {city}.",
            tuple(wording.format(country=country) for wording in CAPITAL_WORDINGS),
        )
        for country, city in CAPITALS.items()
    ),
    (
        "The sky is blue.",
        (
            "What colour is the sky?",
            "What color is the sky?",
            "Which colour is the sky?",
            "Tell me the colour of the sky.",
            "What is the colour of the sky?",
        ),
    ),
    (
        "Grass is green.",
        (
            "What colour is grass?",
            "What color is grass?",
            "Which colour is grass?",
            "What is the colour of grass?",
        ),
    ),
    (
        "Snow is white.",
        (
            "What colour is snow?",
            "What color is snow?",
            "Which colour is snow?",
            "What is the colour of snow?",
        ),
    ),
    (
        "There are seven days in a week.",
        (
            "How many days are in a week?",
            "How many days are there in a week?",
            "How many days does a week have?",
            "How many days has a week?",
        ),
    ),
    (
        "There are twelve months in a year.",
        (
            "How many months are in a year?",
            "How many months are there in a year?",
            "How many months does a year have?",
            "How many months has a year?",
        ),
    ),
    (
        "There are 24 hours in a day.",
        (
            "How many hours are in a day?",
            "How many hours are there in a day?",
            "How many hours does a day have?",
            "How many hours has a day?",
        ),
    ),
    (
        "A spider has eight legs.",
        (
            "How many legs does a spider have?",
            "How many legs do spiders have?",
            "How many legs has a spider?",
        ),
    ),
    (
        "A cat has four legs.",
        ("How many legs does a cat have?", "How many legs do cats have?", "How many legs has a cat?"),
    ),
    (
        "The largest planet is Jupiter.",
        (
            "What is the largest planet?",
            "Which planet is the largest?",
            "What is the biggest planet?",
            "Which planet is the biggest?",
        ),
    ),
    (
        "Water boils at 100 degrees Celsius.",
        (
            "When does water boil?",
            "At what temperature does water boil?",
            "How hot is boiling water?",
            "What is the boiling point of water?",
        ),
    ),
    (
        "Water freezes at 0 degrees Celsius.",
        (
            "When does water freeze?",
            "At what temperature does water freeze?",
            "How cold is freezing water?",
            "What is the freezing point of water?",
        ),
    ),
    (
        "William Shakespeare wrote Hamlet.",
        (
            "Who wrote Hamlet?",
            "Who is the author of Hamlet?",
            "Tell me who wrote Hamlet.",
            "Hamlet was written by whom?",
        ),
    ),
    (
        "The opposite of hot is cold.",
        ("What is the opposite of hot?", "Tell me the opposite of hot.", "What's the opposite of hot?"),
    ),
    (
        "Bees make honey.",
        ("What do bees make?", "Who makes honey?", "Which animals make honey?", "What animal makes honey?"),
    ),
)

BORN = "Justin Bieber was born on March 1, 1994."
CHAMPIONS = "The Dallas Cowboys won the Super Bowl in 1994."
CHAMPIONS_AT_BIRTH = f"Justin Bieber was born in 1994. {CHAMPIONS}"

SUPER_BOWL: tuple[Entry, ...] = (
    (
        CHAMPIONS_AT_BIRTH,
        (
            "What NFL team won the Super Bowl in the year Justin Bieber was born?",
            "Which NFL team won the Super Bowl in the year Justin Bieber was born?",
            "Who won the Super Bowl in the year Justin Bieber was born?",
            "Which team won the Super Bowl in the year that Justin Bieber was born?",
            "What team won the Super Bowl the year Justin Bieber was born?",
            "Who won the Super Bowl when Justin Bieber was born?",
            "In the year Justin Bieber was born, what NFL team won the Super Bowl?",
            "Tell me which NFL team won the Super Bowl in the year Justin Bieber was born.",
            "Justin Bieber was born in which year, and who won the Super Bowl that year?",
            "Which football team won the Super Bowl in the year of Justin Bieber's birth?",
            "Name the NFL team that won the Super Bowl in the year Justin Bieber was born.",
        ),
    ),
    (
        BORN,
        (
            "When was Justin Bieber born?",
            "What year was Justin Bieber born?",
            "In which year was Justin Bieber born?",
            "In what year was Justin Bieber born?",
            "When is Justin Bieber's birthday?",
            "Tell me when Justin Bieber was born.",
            "What year was Justin Bieber born in?",
        ),
    ),
    (
        CHAMPIONS,
        (
            "Who won the Super Bowl in 1994?",
            "Which team won the Super Bowl in 1994?",
            "What NFL team won the Super Bowl in 1994?",
            "Which NFL team won the 1994 Super Bowl?",
            "What team won the Super Bowl in 1994?",
            "Tell me who won the Super Bowl in 1994.",
            "Who won the 1994 Super Bowl?",
        ),
    ),
    (
        "Justin Bieber is a singer. He was born in 1994.",
        (
            "Who is Justin Bieber?",
            "Tell me about Justin Bieber.",
            "What does Justin Bieber do?",
            "So who is Justin Bieber?",
        ),
    ),
)
"""What the notebook of the package that this one replaces asks, and its parts."""

PETAL_STORY = """
Once upon a time a small blue petal fell into a river. It sailed past a mill, a farm and a sleeping town.
A duck asked where it was going. "To the sea," said the petal. The duck laughed, but swam beside it all
night. In the morning they heard the waves. "You were right," said the duck, and they watched the sun
rise together. The end.
"""
LAMP_STORY = """
A fox and a bear shared one lamp. The fox read by day and the bear read by night, and neither was ever in
the dark. One winter the lamp went out. They each carried one half of a new lamp up the hill, piece by
piece, until it shone again. "Heavy things are light," said the fox, "when everyone carries a block."
The end.
"""
POEM = """
Roses fall and petals fly,
many lights in one night sky.
One holds this and one holds that,
one a block and one a hat.
Pass it on from hand to hand,
over sea and over land.
No one holds the whole alone,
yet the song is fully known.
"""

STORIES: tuple[Entry, ...] = (
    (
        " ".join(PETAL_STORY.split()),
        (
            "Tell me a story.",
            "Tell me a short story.",
            "Please tell me a story.",
            "Story time!",
            "I want a story.",
        ),
    ),
    (
        " ".join(LAMP_STORY.split()),
        ("Tell me another story.", "Another story, please.", "One more story.", "Tell me one more story."),
    ),
    (
        POEM.strip(),
        ("Write a poem.", "Tell me a poem.", "Write me a poem.", "Recite a poem.", "I want a poem."),
    ),
)
