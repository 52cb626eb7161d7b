"""The work: Dramatiq actors that read a recording from the store and write its transcript back.

The only package that knows faster-whisper (`engine.py`) and PyAV (`audio.py`). Everything may run twice: a worker owns
a job by lease and token, and what it writes after losing them is refused. `messages.py` is light enough for the API to
import, so that sending work never loads the engine.
"""
