"""What can go wrong with the work itself; what can go wrong in storage is in storage/errors.py.

    ActorError
    ├── AudioError            the recording is to blame: its job fails and is not tried again
    │   ├── AudioUnreadable   not audio or video, no audio stream, nothing in it can be decoded
    │   └── AudioTooLong      it lasts longer than MAX_DURATION
    ├── InvalidOptions        the model cannot do what is asked for
    ├── UrlNotAllowed         a client's url is none, or leads to an address that is not public
    ├── UrlUnreachable        its name cannot be resolved, or nobody answers there
    ├── OriginError           the server of a url does not give the recording
    │   ├── OriginMissing     it knows of none there
    │   ├── OriginRefused     it gives none to us, or in a way that cannot be taken
    │   ├── OriginUntrusted   its certificate is not valid for its name
    │   ├── OriginChanged     it had another recording each time that the fetch was taken up
    │   ├── OriginFailing     it says itself that it fails: worth another try
    │   ├── OriginBroke       connections to it break: worth another try
    │   └── OriginTimeout     it sends nothing, or next to nothing: worth another try
    ├── FileTooLarge          there are more bytes than MAX_FILE_SIZE
    ├── DecoderUnavailable    no process can be started in which a recording is decoded: worth another try
    └── DeviceUnavailable     this machine cannot compute as the settings say

`code` is what clients see; service/errors.py has the table of codes and HTTP statuses.
"""


class ActorError(Exception):
    """Base of everything that actors raise on purpose. The message has the fact and the limit, where there is one."""

    code = "internal_error"


class AudioError(ActorError):
    code = "audio_unreadable"


class AudioUnreadable(AudioError):
    code = "audio_unreadable"


class AudioTooLong(AudioError):
    code = "audio_too_long"


class InvalidOptions(ActorError):
    code = "invalid_parameter"


class UrlNotAllowed(ActorError):
    code = "url_not_allowed"


class UrlUnreachable(ActorError):
    code = "url_unreachable"

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        """`passing`: the resolver did not answer, which says nothing about the name."""
        super().__init__(reason)
        self.passing = passing


class OriginError(ActorError):
    code = "url_refused"


class OriginMissing(OriginError):
    code = "url_not_found"


class OriginRefused(OriginError):
    code = "url_refused"


class OriginUntrusted(OriginError):
    code = "url_untrusted"


class OriginChanged(OriginError):
    code = "url_changed"


class OriginFailing(OriginError):
    code = "url_failing"

    def __init__(self, reason: str, *, retry_after: float = 0.0) -> None:
        """`retry_after`: seconds that the server wants to be left alone."""
        super().__init__(reason)
        self.retry_after = retry_after


class OriginBroke(OriginError):
    code = "url_broken_off"


class OriginTimeout(OriginError):
    code = "url_timeout"


class FileTooLarge(ActorError):
    code = "file_too_large"


class DecoderUnavailable(ActorError):
    code = "internal_error"


class DeviceUnavailable(ActorError):
    code = "device_unavailable"
