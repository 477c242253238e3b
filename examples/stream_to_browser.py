"""A web page to which the answer streams, and whose work stops when the browser goes away.

Open http://127.0.0.1:8000, ask for a story, and close the page in the middle of it. The terminal then says how much of
the answer was made. The answer takes no further step, and its session on the servers is closed. Messages between the
servers are delayed by 30 ms here, as on a network, so that there is time for it.

    python examples/stream_to_browser.py
    curl --no-buffer "http://127.0.0.1:8000/answer?question=Tell+me+a+story."     # Ctrl-C goes away

Needs: fastapi, uvicorn.
"""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import nullcontext

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from langchain_petals import ChatPetals
from langchain_petals.swarm import LocalSwarm

PAGE = """<!doctype html><title>Petals</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width">
<form><input name="question" value="Tell me a story." size="40"> <button>Ask</button></form><p></p>
<script>
document.forms[0].onsubmit = (submitted) => {
  submitted.preventDefault();
  const answer = document.querySelector("p"), asked = new URLSearchParams(new FormData(document.forms[0]));
  answer.textContent = "";
  const events = new EventSource("answer?" + asked);
  events.onmessage = (event) => { answer.textContent += JSON.parse(event.data); };
  events.addEventListener("end", () => events.close());
};
</script>"""


def make_app(chat: ChatPetals) -> FastAPI:
    """Return the web application: a page, and the answers that it asks for."""
    app = FastAPI()

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return PAGE

    @app.get("/answer", response_class=EventSourceResponse)
    async def answer(question: str) -> AsyncIterator[ServerSentEvent]:
        characters, is_whole = 0, False
        try:  # when the browser goes away, this is cancelled where it waits, and so is the work behind it
            async for chunk in chat.astream(question):
                characters += len(chunk.text)
                yield ServerSentEvent(data=chunk.text)
            yield ServerSentEvent(event="end", data="")
            is_whole = True
        finally:
            end = "Answered" if is_whole else "The browser went away. Stopped"
            print(f"{end} after {characters} characters: {question}", flush=True)

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    # LANGCHAIN_PETALS_MODEL and its companions name a swarm; without them this program starts one of its own
    own = nullcontext() if os.environ.get("LANGCHAIN_PETALS_MODEL") else LocalSwarm(hop_delay=0.03)
    with own as swarm:
        # each question stands alone here, so no session is kept for the next one
        chat = ChatPetals(**(swarm.connection if swarm else {}), temperature=0, session_cache=0, preload=True)
        uvicorn.run(make_app(chat), port=port)


if __name__ == "__main__":
    main()
