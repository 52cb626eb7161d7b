"""What every recording is decoded to."""

#: Samples a second of everything that leaves actors.audio: what Whisper was trained on.
SAMPLE_RATE = 16000

#: Seconds in a block, and samples.
BLOCK_SECONDS = 30
BLOCK = BLOCK_SECONDS * SAMPLE_RATE
