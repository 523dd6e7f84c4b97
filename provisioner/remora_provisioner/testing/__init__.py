"""Jails for tests, and the contract that every jail passes; they ship with the product and keep the real thing's contract.

Law: nothing of the product imports this package.
"""

from __future__ import annotations

from .contract import JailContract, run_contract
from .fakes import BadJail, FakeJail, NeverJail, SlowJail
from .visits import PATIENCE, Visit, make_plan

__all__ = ["PATIENCE", "BadJail", "FakeJail", "JailContract", "NeverJail", "SlowJail", "Visit", "make_plan", "run_contract"]
