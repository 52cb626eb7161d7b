"""`scripts/chaos`: whether what was accepted is done, once and rightly, while everything dies.

speech.py makes known recordings, clients.py hands them in and follows them as a patient client does, poison.py hands in
such as crash or bloat their decoder, strikes.py kills and freezes the parts of a stack and starts them again as a
supervisor would, recovery.py watches how long the work of a dead worker lies, verdict.py compares what came out with an
undisturbed run.
"""
