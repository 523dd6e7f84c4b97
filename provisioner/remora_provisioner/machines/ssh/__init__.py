"""Reaching a machine by SSH, and which machines the user has. `python -m` of this package is the process of one connection.

Law: paramiko is loaded in that process alone.
"""

from .reaching import Ask, Ended, Question, Reached, Target, nobody, reach

__all__ = ["Ask", "Ended", "Question", "Reached", "Target", "nobody", "reach"]
