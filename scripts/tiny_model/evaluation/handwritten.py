"""Handwritten questions with realistic tools; nothing here is drawn from the generator's lists.

`langchain_petals`' own tests ask them too, through `ChatPetals` on a swarm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiny_model.data.styles import Conversation, Turn, written
from tiny_model.evaluation.tool_questions import Case

if TYPE_CHECKING:
    from collections.abc import Sequence


def _tool(name: str, description: str, /, **parameters: Any) -> dict[str, Any]:
    """Return a tool as LangChain makes it from a function; a parameter is a type or a schema."""
    schemas = {key: {"type": value} if isinstance(value, str) else value for key, value in parameters.items()}
    required = [key for key, schema in schemas.items() if "default" not in schema]
    needed = {"required": required} if required else {}
    return {
        "name": name,
        "description": description,
        "parameters": {"properties": schemas, **needed, "type": "object"},
    }


TIME = _tool("get_current_time", "Get the current time in a city.", city="string")
STOCK = _tool("stock_price", "Look up the price of a stock.", symbol="string")
DICE = _tool("roll_dice", "Roll the dice.")
ADD = _tool("add", "Add two numbers.", a="integer", b="integer")
MULTIPLY = _tool("multiply", "Multiply two numbers.", a="integer", b="integer")
HOTEL = _tool("book_hotel", "Book a hotel in a city.", city="string", nights="integer")
EMAIL = _tool("send_email", "Send an email.", to="string", subject="string")
POPULATION = _tool("population", "Number of people who live in a country.", country="string")
SQUARE = _tool("square_root", "Compute the square root of a number.", number="integer")
TEMPERATURE = _tool(
    "get_temperature",
    "Get the temperature at a place.",
    place={"description": "The place.", "type": "string"},
    unit={"default": "celsius", "enum": ["celsius", "fahrenheit"], "type": "string"},
)
USER = _tool("create_user", "Create a user.", name="string", age="integer")
MUSIC = _tool("play_song", "Play a song by an artist.", song="string", artist="string")
SEARCH = _tool("web_search", "Search the web.", query="string")
TRANSLATE = _tool("translate", "Translate a word to another language.", word="string", language="string")
ALARM = _tool("set_alarm", "Set an alarm.", hour="integer", minute="integer")
CURRENCY = _tool("convert_currency", "Convert money.", amount="number", source="string", target="string")
LIGHTS = _tool("switch_lights", "Switch the lights in a room.", room="string", on="boolean")
NOTE = _tool("save_note", "Save a note.", title="string", text="string")
WORD = _tool("define", "Give the definition of a word.", word="string")
DISTANCE = _tool("distance", "Distance between two cities.", start="string", end="string")


@dataclass(frozen=True)
class Asked:
    """A question with its tools and the expected call.

    Attributes:
        tools: as dictionaries with name, description and parameters.
        question: what the user says.
        name: the tool to call; None for none.
        arguments: of the call.
    """

    tools: Sequence[dict[str, Any]]
    question: str
    name: str | None = None
    arguments: dict[str, Any] | None = None

    @property
    def case(self) -> Case:
        """The question as a prompt, with the right call."""
        written_tools = tuple(json.dumps(tool, ensure_ascii=False) for tool in self.tools)
        (prompt, _), _ = written(Conversation((Turn(self.question, ""),), tools=written_tools), "chatml")
        body = json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)
        return Case(prompt, f"<tool_call>\n{body}\n</tool_call>" if self.name else "")


HANDWRITTEN: tuple[Asked, ...] = (
    Asked([TIME], "What is the current time in Tokyo?", "get_current_time", {"city": "Tokyo"}),
    Asked([TIME], "Please tell me the time in New York", "get_current_time", {"city": "New York"}),
    Asked([TIME], "What time is it in London right now?", "get_current_time", {"city": "London"}),
    Asked([STOCK], "What's the price of the stock AAPL?", "stock_price", {"symbol": "AAPL"}),
    Asked([STOCK], "stock_price('MSFT')", "stock_price", {"symbol": "MSFT"}),
    Asked([DICE], "Roll the dice!", "roll_dice", {}),
    Asked([DICE], "Could you roll the dice for me, please?", "roll_dice", {}),
    Asked([ADD], "What is 17 + 25?", "add", {"a": 17, "b": 25}),
    Asked([ADD], "Add 1999 and 1.", "add", {"a": 1999, "b": 1}),
    Asked([ADD, MULTIPLY], "What is 12 times 12?", "multiply", {"a": 12, "b": 12}),
    Asked([ADD, MULTIPLY], "How much is 40 plus 2?", "add", {"a": 40, "b": 2}),
    Asked([MULTIPLY], "Multiply 6 by 7 and tell me what you get.", "multiply", {"a": 6, "b": 7}),
    Asked([HOTEL], "Book a hotel in Rome for 3 nights.", "book_hotel", {"city": "Rome", "nights": 3}),
    Asked(
        [HOTEL], "I want a hotel in Buenos Aires for 10 nights", "book_hotel", {"city": "Buenos Aires", "nights": 10}
    ),
    Asked([HOTEL], "book_hotel(city='Oslo', nights=2)", "book_hotel", {"city": "Oslo", "nights": 2}),
    Asked(
        [EMAIL],
        "Send an email to anna@example.com with the subject 'Lunch on Friday'.",
        "send_email",
        {"to": "anna@example.com", "subject": "Lunch on Friday"},
    ),
    Asked([POPULATION], "What is the population of Kenya?", "population", {"country": "Kenya"}),
    Asked([POPULATION], "How many people live in Brazil?", "population", {"country": "Brazil"}),
    Asked([SQUARE], "Compute the square root of 1764.", "square_root", {"number": 1764}),
    Asked([SQUARE], "What is the square root of 2?", "square_root", {"number": 2}),
    Asked([TEMPERATURE], "What is the temperature in Cairo?", "get_temperature", {"place": "Cairo"}),
    Asked(
        [TEMPERATURE],
        "What is the temperature in Boston, MA in fahrenheit?",
        "get_temperature",
        {"place": "Boston, MA", "unit": "fahrenheit"},
    ),
    Asked([TEMPERATURE], "Tell me the temperature of 東京.", "get_temperature", {"place": "東京"}),
    Asked([TEMPERATURE], "What is the temperature in Москва?", "get_temperature", {"place": "Москва"}),
    Asked([TEMPERATURE], "What's the temperature in Αθήνα?", "get_temperature", {"place": "Αθήνα"}),
    Asked([TEMPERATURE], "Get the temperature of القاهرة.", "get_temperature", {"place": "القاهرة"}),
    Asked([USER], "Create a user with name Maria and age 31.", "create_user", {"name": "Maria", "age": 31}),
    Asked([USER], "Create a user called 王小明, age 42.", "create_user", {"name": "王小明", "age": 42}),
    Asked([USER], "Create the user さくら with the age 7.", "create_user", {"name": "さくら", "age": 7}),
    Asked(
        [MUSIC],
        "Play the song 'Yesterday' by The Beatles.",
        "play_song",
        {"song": "Yesterday", "artist": "The Beatles"},
    ),
    Asked([SEARCH], "Search the web for 'cheap flights to Lima'.", "web_search", {"query": "cheap flights to Lima"}),
    Asked([SEARCH], "Search for 🦊 on the web.", "web_search", {"query": "🦊"}),
    Asked([TRANSLATE], "Translate the word 'bread' to French.", "translate", {"word": "bread", "language": "French"}),
    Asked([ALARM], "Set an alarm with hour 7 and minute 30.", "set_alarm", {"hour": 7, "minute": 30}),
    Asked(
        [CURRENCY],
        "Convert 100 from EUR to USD.",
        "convert_currency",
        {"amount": 100, "source": "EUR", "target": "USD"},
    ),
    Asked([LIGHTS], "Switch the lights: room kitchen, on true.", "switch_lights", {"room": "kitchen", "on": True}),
    Asked(
        [NOTE],
        "Save a note titled 'Garden' - water the roses",
        "save_note",
        {"title": "Garden", "text": "water the roses"},
    ),
    Asked([WORD], "What is the definition of serendipity?", "define", {"word": "serendipity"}),
    Asked([DISTANCE], "What is the distance from Paris to Berlin?", "distance", {"start": "Paris", "end": "Berlin"}),
    Asked([TIME, STOCK, HOTEL], "What's the time in Madrid?", "get_current_time", {"city": "Madrid"}),
    Asked([TIME, STOCK, HOTEL], "Book a hotel in Madrid for 4 nights", "book_hotel", {"city": "Madrid", "nights": 4}),
    Asked([DICE, SEARCH, WORD], "Roll the dice", "roll_dice", {}),
    Asked([TIME, SQUARE], "Hello!"),
    Asked([TIME, SQUARE], "Thank you very much!"),
    Asked([SEARCH], "Who are you?"),
    Asked([STOCK], "What is the capital of France?"),
    Asked([DICE, USER], "Repeat after me: nothing to see here"),
    Asked([HOTEL], "Spell river."),
)
