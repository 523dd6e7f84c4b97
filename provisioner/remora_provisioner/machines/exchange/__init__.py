"""The notebook's folder on two machines: brought to agreement before a run and after it."""

from .home import FolderHome
from .receipts import Receipt
from .serving import serve

__all__ = ["FolderHome", "Receipt", "serve"]
