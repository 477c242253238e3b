"""Sessions: rows of tokens with their attention caches on servers or in this process."""

from langchain_petals.engine.sessions.local_session import LocalSession
from langchain_petals.engine.sessions.session import Session, SwarmSession
from langchain_petals.engine.sessions.session_pool import SessionPool

__all__ = ["LocalSession", "Session", "SessionPool", "SwarmSession"]
