"""Bringing a machine that has a shell all that the agent needs there: a Python, its libraries, our code."""

from .bundle import Bundle, prepare
from .dialogue import COMMAND, Facts, Program, Settled, settle

__all__ = ["COMMAND", "Bundle", "Facts", "Program", "Settled", "prepare", "settle"]
