"""Isolated steps: each try in a process group of its own, which a timeout or a cancel kills at once.

Owns both sides: `process_group` is the agent's, `child` the other, `call` what crosses between them; `step` makes of it a try like any
other. Refuses to import anything here: the process of each try begins with this package, and needs none of the agent's side.
"""
