#!/usr/bin/env python
"""The command line of this checkout: its engine, its `workflows/`, from whatever folder it is called.

Puts `engine/` on the path of this process and of those that it starts, and makes this folder the root of the
app, so that nothing need be installed but the dependencies. What is named on the command line is still
relative to the caller's folder.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENGINE = str(ROOT / "engine")

if __name__ == "__main__":
    sys.path.insert(0, ENGINE)
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != ENGINE]
    os.environ["PYTHONPATH"] = os.pathsep.join([ENGINE, *others])
    os.environ.setdefault("OUTLAST_HOME", str(ROOT))

    from outlast.cli.main import main

    main()
