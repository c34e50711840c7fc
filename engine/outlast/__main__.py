"""`python -m outlast`: the command line, for whoever has the package and no script, and for the processes
that `up` starts.
"""

import os

from outlast.child_path import take_out
from outlast.cli.main import main

if __name__ == "__main__":
    take_out(os.environ)
    main()
