"""The notebook's folder on two machines: brought to agreement before a run and after it."""

from .home import FolderHome
from .receipts import Receipt
from .resting import Rest, is_at_rest, rest, tell
from .serving import serve

__all__ = ["FolderHome", "Receipt", "Rest", "is_at_rest", "rest", "serve", "tell"]
