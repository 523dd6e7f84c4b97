"""What a machine can do, and what of ours it keeps, printed as JSON: `python -m remora_provisioner.machines.examining PLACE`.

Law: looks and tries, changes nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..doctor import examine
from .tidying import sizes

if __name__ == "__main__":
    print(json.dumps(examine() | {"kept": sizes(Path(sys.argv[1]))}))
