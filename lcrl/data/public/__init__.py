"""Public data sets, from their publishers' layouts to those that tasks and data sources read.

`lcrl-data` is the command. `sets` lists the sets, `files` finds and reads their
files, `problems` and `chats` convert rows, `conversion` counts, and `writing` writes.
"""
