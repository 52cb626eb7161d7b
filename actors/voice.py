"""Where speech is: Silero's voice activity model, the one inside faster-whisper, fed block by block."""

import numpy as np
from faster_whisper.vad import get_vad_model

#: Samples in a frame of the model: 32 ms.
FRAME = 512

#: Samples before a frame that the model sees with it.
_CONTEXT = 64

#: Frames a call: larger blocks fall out of the processor's cache and take a sixth longer.
_CALL = 128


class VoiceActivity:
    """The probability of speech in each frame of a recording, whatever the size of the blocks it comes in.

    The model's memory and the samples of an unfinished frame are carried from block to block, so that a recording gives
    the same probabilities in one block as in many. One object listens to one recording.
    """

    def __init__(self) -> None:
        self._session = get_vad_model().session
        self._h = np.zeros((1, 1, 128), np.float32)
        self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)
        self._rest = np.zeros(0, np.float32)

    def listen(self, samples: np.ndarray) -> np.ndarray:
        """Probabilities, shape (frames,), of the frames that these samples complete.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape (samples,), any number of them.
        """
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // FRAME * FRAME
        self._rest = joined[whole:]
        frames = joined[:whole].reshape(-1, FRAME)
        calls = [self._run(frames[at : at + _CALL]) for at in range(0, len(frames), _CALL)]
        return np.concatenate(calls) if calls else np.zeros(0, np.float32)

    def _run(self, frames: np.ndarray) -> np.ndarray:
        contexts = np.concatenate([self._context[None], frames[:-1, -_CONTEXT:]])
        self._context = frames[-1, -_CONTEXT:]
        heard = {"input": np.concatenate([contexts, frames], axis=1), "h": self._h, "c": self._c}
        probabilities, self._h, self._c = self._session.run(None, heard)
        return np.asarray(probabilities, np.float32).reshape(-1)
