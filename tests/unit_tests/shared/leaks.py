"""All places where a key could be written, each as text."""

from __future__ import annotations

import base64
import copy
import pickle
import traceback
import urllib.parse
from typing import TYPE_CHECKING, Any

from langchain_core.load import dumpd, dumps
from pydantic import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CANARY = "hf_CanaryThatSingsWhenItIsSeen42"

_ENCODINGS = (
    CANARY,
    CANARY[4:-4],
    urllib.parse.quote(CANARY, safe=""),
    CANARY.encode().hex(),
    *(base64.b64encode(b"x" * shift + CANARY.encode())[4:-4].decode() for shift in range(3)),
)


def sings(text: object) -> bool:
    """Return whether the text of an object holds the canary, in plain text or encoded."""
    seen = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    return any(encoded in seen for encoded in _ENCODINGS)


def written_forms(model: Any) -> dict[str, object]:
    """Return all serialized forms of a model."""
    twin, deep_twin = copy.copy(model), copy.deepcopy(model)
    return {
        "repr": repr(model),
        "str": str(model),
        "format": f"{model}",
        "rich repr": list(model.__rich_repr__()),
        "repr of the fields": repr(vars(model)),
        "model_dump": model.model_dump(),
        "model_dump of JSON types": model.model_dump(mode="json"),
        "model_dump_json": model.model_dump_json(),
        "asdict": model.asdict(),
        "dumps": dumps(model),
        "dumps, pretty": dumps(model, pretty=True),
        "dumpd": dumpd(model),
        "to_json": model.to_json(),
        "pickle": pickle.dumps(model),
        "reduce": model.__reduce_ex__(4),
        "identifying parameters": model._identifying_params,
        "LangSmith parameters": model._get_ls_params(),
        "copy": repr(twin),
        "deep copy": repr(deep_twin),
        "model_copy": repr(model.model_copy(update={"temperature": 0.5})),
        "connection": repr(model._connection()),
        "bound": repr(model.bind(stop=["x"])),
        "graph": repr(model.get_graph().to_json()),
    }


def frames(error: BaseException) -> Iterator[str]:
    """Return an error as tools show it that show local variables, its causes included, and their attributes.

    A test's own frames are left out: they hold what the test gave.
    """
    for link in _links(error):
        shown = traceback.TracebackException.from_exception(link, capture_locals=True)
        shown.__cause__ = shown.__context__ = None
        own = [frame for frame in shown.stack if "/tests/" in frame.filename]
        yield "".join(traceback.StackSummary.from_list([frame for frame in shown.stack if frame not in own]).format())
        yield "".join(shown.format_exception_only())
        yield repr((link, link.args, vars(link)))
        for name in ("response", "request"):
            yield repr(getattr(getattr(link, name, None), "headers", None))
        if isinstance(link, ValidationError):
            yield repr(link.errors())


def raised(call: Callable[[], Any]) -> BaseException:
    """Return the error that a call raises."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error
    msg = "it raised nothing"
    raise AssertionError(msg)


def _links(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], []
    while waiting:
        link = waiting.pop()
        if link in seen:
            continue
        seen.append(link)
        yield link
        waiting += [other for other in (link.__cause__, link.__context__) if other is not None]
