"""The guest's first lines: started by path, it makes `remora` importable and gets out of the way of the user's files.

Law: until all of ours is imported, no folder of the user's may be looked at: a `comm.py` or `random.py` beside the notebook
shadows nothing. The `remora` of this very file is taken, whatever version the image holds.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

if __name__ == "__main__":
    _here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if entry not in ("", ".") and Path(entry).resolve() not in (_here, Path.cwd())]
    _spec = spec_from_file_location("remora", _here.parent / "__init__.py", submodule_search_locations=[str(_here.parent)])
    assert _spec is not None and _spec.loader is not None
    sys.modules["remora"] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["remora"])

    from remora.guest.service import main

    main()
