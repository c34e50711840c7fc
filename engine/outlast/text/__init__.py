"""Text for and from people: durations, names, numbers of things, and what is safe to show.

Owns the reading and the writing of each. Refuses I/O, and text of one subject: that stands where the subject does. Empty, since a
workflow file costs a process no more than it uses.
"""
