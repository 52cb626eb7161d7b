"""Which ends of jobs are still to be told to whoever waits for them, and what came of each try.

The step that makes a job final writes it into the outbox (job_scripts.py), so that no end is forgotten, whatever dies
next; so does the one that makes a lost record again. From there: `due` hands out what is to be posted now, `take` makes
one worker the one that posts, `settle` notes what came of it and says when it is tried again, if at all. Each of them
sets the time at which the job is due once more should nothing follow: a message that is lost or a worker that is killed
costs time, never a delivery. So a receiver may be told twice; it knows the second time by the id. Keys, in database 1,
removed with the job's record:

    bs:outbox            sorted set: id -> when it is looked at next, in seconds by Redis's clock
    bs:delivery:{id}     hash, while the job is in the outbox: `asked`, the ticket of the message on its way; `token`,
                         of the worker that posts; `failures` and `began`, of the tries so far
    bs:deliveries:{id}   list: the attempts as JSON, the oldest first
"""

import secrets
from typing import Any

import msgspec
import redis

from storage.redis_client import JOBS_DATABASE, connect, redis_errors
from storage.settings import StorageSettings
from storage.structs import decode

#: Attempts kept for a job: more than a day of them has.
_KEPT = 100

#: So long after the first try no further one is made, and a job that is made again is posted if it ended within it.
GIVE_UP_SECONDS = 86_400

#: How long a message may be on its way before another is sent.
ASKED_SECONDS = 60
#: How long a worker may take to post before it is taken for dead; a post is bounded far below it.
TAKEN_SECONDS = 60

_HEAD = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local function look_again(id, seconds)
    redis.call('ZADD', 'bs:outbox', string.format('%.3f', now + seconds), id)
end
"""

#: ARGV: ticket, seconds until another message is sent, most ids. Returns the ids that are due, the earliest first. A
#: worker that had one and did not settle it in its time has it no more.
_DUE = (
    _HEAD
    + """
local due = redis.call('ZRANGE', 'bs:outbox', '-inf', string.format('%.3f', now), 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, id in ipairs(due) do
    look_again(id, ARGV[2])
    redis.call('HSET', 'bs:delivery:' .. id, 'asked', ARGV[1])
    redis.call('HDEL', 'bs:delivery:' .. id, 'token')
end
return due
"""
)

#: KEYS: delivery. ARGV: id, ticket or token. What was found to have nobody to go to leaves the outbox, unless it was
#: asked for again since.
_DROP = """
if redis.call('HGET', KEYS[1], 'asked') ~= ARGV[2] and redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return 0 end
redis.call('ZREM', 'bs:outbox', ARGV[1])
redis.call('DEL', KEYS[1])
return 1
"""

#: KEYS: delivery. ARGV: id, token, seconds to post in. Returns the time, failures so far and when the first try began;
#: nothing when it is not asked for: a message that came twice. The same token may ask again: redis-py repeats a script
#: whose answer was lost.
_TAKE = (
    _HEAD
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then
    if redis.call('HDEL', KEYS[1], 'asked') == 0 or not redis.call('ZSCORE', 'bs:outbox', ARGV[1]) then return {} end
    redis.call('HSET', KEYS[1], 'token', ARGV[2])
    redis.call('HSETNX', KEYS[1], 'began', string.format('%.3f', now))
    look_again(ARGV[1], ARGV[3])
end
local failures, began = redis.call('HGET', KEYS[1], 'failures'), redis.call('HGET', KEYS[1], 'began')
return {string.format('%.3f', now), failures or '0', began}
"""
)

#: KEYS: delivery, attempts, record. ARGV: id, token, attempt as JSON, most attempts kept, when it is tried again or ''.
#: An attempt that was taken for dead is noted too, but decides nothing any more. Returns 1 when it did.
_SETTLE = """
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
if redis.call('LINDEX', KEYS[2], -1) ~= ARGV[3] then redis.call('RPUSH', KEYS[2], ARGV[3]) end
redis.call('LTRIM', KEYS[2], -ARGV[4], -1)
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return 0 end
if ARGV[5] == '' then
    redis.call('ZREM', 'bs:outbox', ARGV[1])
    redis.call('DEL', KEYS[1])
else
    redis.call('ZADD', 'bs:outbox', ARGV[5], ARGV[1])
    redis.call('HINCRBY', KEYS[1], 'failures', 1)
    redis.call('HDEL', KEYS[1], 'token')
end
return 1
"""

#: KEYS: delivery. ARGV: id, token, seconds. It was not posted after all, and is due again then.
_PUT_OFF = (
    _HEAD
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'token')
look_again(ARGV[1], ARGV[3])
return 1
"""
)

#: KEYS: delivery, record. ARGV: id. As if the job had ended just now. Returns 0 when it is gone.
_ASK = (
    _HEAD
    + """
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('DEL', KEYS[1])
look_again(ARGV[1], 0)
return 1
"""
)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One post of a job. Times are seconds since the epoch, by Redis's clock."""

    at: float
    #: How long it took, in seconds.
    seconds: float
    #: As the receiver answered; None: it did not.
    status: int | None = None
    #: Why it did not count, where the status does not say it.
    error: str | None = None
    #: When it is tried again; None: it is not.
    next_at: float | None = None


def is_delivered(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


class Deliveries(msgspec.Struct, frozen=True):
    #: The oldest first; of very many the latest.
    attempts: list[Attempt]
    #: When the job is posted next, or looked after if it is being posted now; None: it is not any more.
    next_at: float | None


class Taken(msgspec.Struct, frozen=True):
    """A worker's right to post a job now. Times as in Attempt."""

    token: str
    at: float
    #: Attempts that failed since `began`.
    failures: int
    began: float


class Outbox:
    """Raises QueueUnavailable from every method when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        # As in JobStore: this client decodes, so that every answer is text.
        self._redis: Any = client
        self._due = client.register_script(_DUE)
        self._drop = client.register_script(_DROP)
        self._take = client.register_script(_TAKE)
        self._settle = client.register_script(_SETTLE)
        self._put_off = client.register_script(_PUT_OFF)
        self._ask = client.register_script(_ASK)

    @classmethod
    def connect(cls, settings: StorageSettings) -> "Outbox":
        return cls(connect(settings, JOBS_DATABASE))

    @redis_errors()
    def due(self, ticket: str, limit: int = 100) -> list[str]:
        """Ids of jobs to be posted now: each is asked for with this ticket, by a message, or dropped with it."""
        return list(self._due(args=[ticket, ASKED_SECONDS, limit]))

    @redis_errors()
    def drop(self, job_id: str, ticket: str) -> None:
        """There is nobody to post it to. `ticket`: of `due`, or the token of who took it."""
        self._drop(keys=[_delivery_key(job_id)], args=[job_id, ticket])

    @redis_errors()
    def take(self, job_id: str) -> Taken | None:
        """The right to post a job now; None: it is not asked for, or another has it."""
        token = secrets.token_hex(8)
        reply = self._take(keys=[_delivery_key(job_id)], args=[job_id, token, TAKEN_SECONDS])
        return Taken(token, float(reply[0]), int(reply[1]), float(reply[2])) if reply else None

    @redis_errors()
    def settle(self, job_id: str, taken: Taken, attempt: Attempt) -> None:
        """Note what came of it; `attempt.next_at` says when it is due again, if it is."""
        self._settle(
            keys=[_delivery_key(job_id), _attempts_key(job_id), f"bs:job:{job_id}"],
            args=[
                job_id,
                taken.token,
                msgspec.json.encode(attempt),
                _KEPT,
                "" if attempt.next_at is None else attempt.next_at,
            ],
        )

    @redis_errors()
    def put_off(self, job_id: str, taken: Taken, seconds: float) -> None:
        """It could not be posted now, and that was not the receiver's doing: no attempt is counted."""
        self._put_off(keys=[_delivery_key(job_id)], args=[job_id, taken.token, seconds])

    @redis_errors()
    def ask(self, job_id: str) -> bool:
        """Post it (again), however often it was tried before; False: the job is gone."""
        return bool(self._ask(keys=[_delivery_key(job_id), f"bs:job:{job_id}"], args=[job_id]))

    @redis_errors()
    def deliveries(self, job_id: str) -> Deliveries:
        with self._redis.pipeline() as steps:
            steps.lrange(_attempts_key(job_id), 0, -1)
            steps.zscore("bs:outbox", job_id)
            attempts, next_at = steps.execute()
        return Deliveries([decode(text, Attempt) for text in attempts], next_at)


def _delivery_key(job_id: str) -> str:
    return f"bs:delivery:{job_id}"


def _attempts_key(job_id: str) -> str:
    return f"bs:deliveries:{job_id}"
