"""Makes prompts from LangChain's messages, and messages from the engine's pieces; needs neither torch nor petals."""

from langchain_petals.chat.prompt import Prompt, PromptBuilder
from langchain_petals.chat.reasoning import ReasoningSplitter
from langchain_petals.chat.response import ChatResponse
from langchain_petals.chat.response_format import ResponseFormat
from langchain_petals.chat.structured_output import Method, structured_output_model
from langchain_petals.chat.token_history import history_of

__all__ = [
    "ChatResponse",
    "Method",
    "Prompt",
    "PromptBuilder",
    "ReasoningSplitter",
    "ResponseFormat",
    "history_of",
    "structured_output_model",
]
