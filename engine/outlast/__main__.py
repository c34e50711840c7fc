"""`python -m outlast`: the command line, for whoever has the package and no script, and for the processes
that `up` starts.
"""

from outlast.cli.main import main

if __name__ == "__main__":
    main()
