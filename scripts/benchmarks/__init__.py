"""What the service costs over what it stands on: the store for uploads, faster-whisper for the work.

One module a benchmark, each with a `run` that starts the whole embedded stack (running.py) on free ports in an empty
folder and measures it from outside, in turns with the bare thing in the same run: on a machine that others use too,
only ratios mean something. `__main__.py` holds the table of them; a new benchmark is a module and a line there.
"""
