"""The journal, as values: one entry, and what follows of many.

Owns pure functions over entries: what an undo has to run (`plan`), what a run that is tried again does not see (`aside`), what the retry of
a run takes over (`inheritance`). Refuses I/O: the rows are written and read by `store.journal`, and replayed by `run.history`. Empty, since
each is wanted by itself.
"""
