"""What the embedded stack itself is told, read from its environment."""

import msgspec

from storage.settings import Port


class StackSettings(msgspec.Struct, frozen=True, kw_only=True):
    #: Folder of everything that the embedded stack keeps: objects, Redis, weights, keys, logs.
    bucketscribe_data: str = "data"
    #: Where the embedded SeaweedFS answers; it also takes the four ports that follow, and 10000 above each.
    s3_port: Port = 8333
    #: Where the embedded Valkey answers.
    redis_port: Port = 6380
    #: Of Redis. The embedded stack makes one when it is empty.
    redis_password: str = ""
