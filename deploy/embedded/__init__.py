"""The whole stack on one machine without containers: SeaweedFS, Valkey, the worker and the API under one supervisor.

The store and Redis are the real ones, as wheels from the package index. parts.py knows how each is started and nothing
of who starts it: `scripts/up` gives the command lines to the supervisor, tests and benchmarks run them with running.py.
Everything listens on loopback and keeps its data, keys and sockets in the one folder that it is given.
"""
