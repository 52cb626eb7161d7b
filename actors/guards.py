"""What tells that a window went wrong: Whisper repeats itself, stops early, or hears words in noise. Pure functions."""

import zlib

#: Text that compresses better than this repeats itself; Whisper's own limit.
MAX_COMPRESSION_RATIO = 2.4

#: Below this mean log probability of its tokens a text is guessed; Whisper's own limit.
MIN_LOG_PROBABILITY = -1.0

#: What voice activity takes for speech in music comes out as a word or two below the first of these, or below the
#: second where the model hears silence too.
MUMBLED_LOG_PROBABILITY, MUMBLED_SILENCE_LOG_PROBABILITY = -1.2, -0.5

#: Above this probability of silence, a guessed text is no text; Whisper's own limit.
MAX_SILENCE_PROBABILITY = 0.6

#: A text below this is not believed where hardly anybody speaks.
MIN_DOUBTFUL_LOG_PROBABILITY = -0.7

#: Speech after the last timestamp that is worth another look, in seconds.
UNHEARD_SECONDS = 0.8


def repeats(text: str) -> bool:
    """Whether a text repeats itself beyond belief: as a whole, or two to ten words three times running."""
    if compression_ratio(text) > MAX_COMPRESSION_RATIO:
        return True
    words = text.lower().split()
    return any(
        words[at : at + size] == words[at + size : at + 2 * size] == words[at + 2 * size : at + 3 * size]
        for size in range(2, 11)
        for at in range(len(words) - 3 * size + 1)
    )


def compression_ratio(text: str) -> float:
    """How much smaller a text gets, as Whisper measures it; an empty one does not."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def says_twice(text: str) -> bool:
    """Whether six to sixteen words come twice running: people do say that, but a model in doubt does so oftener."""
    words = text.lower().split()
    return any(
        words[at : at + size] == words[at + size : at + 2 * size]
        for size in range(6, 17)
        for at in range(len(words) - 2 * size + 1)
    )


def guessed(log_probability: float) -> bool:
    return log_probability < MIN_LOG_PROBABILITY


def worded(text: str, log_probability: float, silence_probability: float) -> bool:
    """Whether a text is words that somebody said: music that passes for speech gives dots, or an improbable word."""
    silent_too = silence_probability > MAX_SILENCE_PROBABILITY
    limit = MUMBLED_SILENCE_LOG_PROBABILITY if silent_too else MUMBLED_LOG_PROBABILITY
    mumbled = log_probability < limit and len(text.split()) <= 2
    return any(letter.isalnum() for letter in text) and not mumbled


def silent(log_probability: float, silence_probability: float) -> bool:
    """Whether the model hears nothing and what it wrote is a guess."""
    return silence_probability > MAX_SILENCE_PROBABILITY and guessed(log_probability)


def invented(text: str, log_probability: float) -> bool:
    """Whether what seems to be said in music or silence is made up."""
    return log_probability < MIN_DOUBTFUL_LOG_PROBABILITY or repeats(text)
