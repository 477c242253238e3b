"""`python -m langchain_petals` is the command `langchain-petals`."""

from langchain_petals.cli import app

app(prog_name="langchain-petals")
