"""Reading a session from Python: tables, images and versions, while it runs and afterwards; nothing is ever changed.

What this package exports is stable: `API_VERSION` says which of it there is. A release may add to it (the second number grows);
what is to be removed or to behave differently first warns (``FutureWarning``) for two minor releases and at least a year, and
then the first number grows. Everything else of icestream may change with any release.
"""

from icestream.api.frames import FrameKind
from icestream.api.session import API_VERSION, Result, Session, Step
from icestream.errors import SessionError

__all__ = ["API_VERSION", "FrameKind", "Result", "Session", "SessionError", "Step"]
