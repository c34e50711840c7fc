"""The command line: what a person types, and what scripts read.

`main` is the way in and out (errors, exit codes, signals), `catalogue` the table of all commands, `group` how
click finds and describes them, `context` which file and which code they work on, `output`, `text` and
`render` what reaches the terminal; the other modules hold one group of commands each. No command knows SQL:
it asks the views and commits operations.
"""
