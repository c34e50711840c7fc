"""`python -m outlast`: the command line, for whoever has the package and no script, and for the processes
that `up` starts.
"""

import os

from outlast.cli.main import main
from outlast.node_path import take_out

if __name__ == "__main__":
    take_out(os.environ)
    main()
