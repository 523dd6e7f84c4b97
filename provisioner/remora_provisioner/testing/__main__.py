"""`python -m remora_provisioner.testing JAIL [files] [processes]`: the contract, and what that jail hides."""

from __future__ import annotations

import sys

from .contract import run_contract

if __name__ == "__main__":
    sys.exit(run_contract(sys.argv[1], "files" in sys.argv[2:], "processes" in sys.argv[2:]))
