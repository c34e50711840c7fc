"""The command line: every command, its exit codes and its JSON."""
