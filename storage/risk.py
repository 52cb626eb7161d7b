"""Which job a worker's death counts against: the one that it was working on, where that is known, and no other.

A recording may kill its worker (the engine runs out of memory, say), and must not do so for ever: after so many deaths
its job fails as `worker_lost`. But a worker also dies by `kill -9`, by a power cut, or because of something else that
it had in hand; then nobody's job may fail. A death does not say which it was. So

- a death counts against a job (or a chunk of one) only where that was all the dead worker had in hand, from its claim
  on: `deaths` in the record;
- beside other work it is free of charge, but noted: `lost_beside`. What was lost twice like that is a suspect: a
  worker claims it only when nothing else is in hand, and takes nothing beside it (actors/hand.py). If it does kill its
  workers, it now does so alone, and each death counts;
- what goes forward is not to blame: `deaths` and `lost_beside` begin at zero again when a cut announces a new chunk or
  a new segment is told, and are gone with a finished step or chunk;
- a worker that was only frozen says so when it comes back, and what was counted is taken back: so often, since a
  recording may also be what stops its worker for longer than a lease;
- fetching a url decodes nothing, risks nothing and is never blamed.

So a recording that kills its workers costs at most two deaths beside others and `MAX_JOB_ATTEMPTS` alone, and a sound
job fails only where its worker is killed from outside that often while that job is all it has. Fields of the record, of
a chunk with `:{number}` at their end: `risk` while a worker holds it (`alone` or `beside`), `holder`, its token,
`deaths`, `lost_beside`; `lost`, the token of the last worker that was lost and which of these two was counted; `woken`,
how often that was taken back.
"""

from collections.abc import Sequence

import msgspec

#: Number of deaths of a worker with other work after which a job runs alone.
_SUSPECT_AFTER = 2

#: Workers that come back after they were taken for dead, for which nothing is counted.
_MOST_WOKEN = 10


class Risk(msgspec.Struct, frozen=True):
    """What else is lost if a worker dies of the work that it takes."""

    #: What it has in hand already: ids of jobs, and `{id}/{number}` of chunks.
    beside: Sequence[str] = ()
    #: It takes nothing else before this is done.
    exclusive: bool = False


#: Of a worker that has nothing else in hand, and may take more.
ALONE = Risk()


def risk_args(risk: Risk | None) -> list[str]:
    """How the scripts take it. None: nothing can happen."""
    if risk is None:
        return ["none"]
    return ["exclusive" if risk.exclusive else "shared", *risk.beside]


#: Follows PRELUDE. `suffix` is '' for a job's own step and ':3' for a chunk.
LUA = f"""
-- The work is taken on though somebody held it: its worker died, or was frozen.
local function count_loss(suffix)
    local risk = get('risk' .. suffix)
    if not risk then return end
    local counted = (risk == 'alone' and 'deaths' or 'lost_beside') .. suffix
    redis.call('HINCRBY', job, counted, 1)
    redis.call('HSET', job, 'lost' .. suffix, (get('holder' .. suffix) or '') .. ' ' .. counted)
    redis.call('HDEL', job, 'risk' .. suffix)
end
-- A worker that does not hold it any more says that it lives.
local function take_back_loss(suffix, token)
    local lost, counted = string.match(get('lost' .. suffix) or '', '^(%S+) (%S+)$')
    local uncounted = get('holder' .. suffix) == token and get('risk' .. suffix)
    if lost ~= token and not uncounted then return end
    if redis.call('HINCRBY', job, 'woken' .. suffix, 1) > {_MOST_WOKEN} then return end
    if uncounted then
        redis.call('HDEL', job, 'risk' .. suffix)
    else
        redis.call('HINCRBY', job, counted, -1)
        redis.call('HDEL', job, 'lost' .. suffix)
    end
end
local function deaths(suffix) return tonumber(get('deaths' .. suffix) or '0') end
local function must_be_alone(suffix, kind)
    return kind == 'shared' and tonumber(get('lost_beside' .. suffix) or '0') >= {_SUSPECT_AFTER}
end
-- The token is in the record. ARGV from `first` on: what risk_args gives.
local function note_risk(suffix, first)
    if ARGV[first] == 'none' then return end
    for i = first + 1, #ARGV do
        local id, number = string.match(ARGV[i], '^([^/]+)/?(%d*)$')
        local other, field = 'bs:job:' .. id, number == '' and 'risk' or 'risk:' .. number
        if redis.call('HEXISTS', other, field) == 1 then redis.call('HSET', other, field, 'beside') end
    end
    redis.call('HSET', job, 'risk' .. suffix, #ARGV > first and 'beside' or 'alone')
    redis.call('HSET', job, 'holder' .. suffix, get('token' .. suffix))
end
local function forget_losses(suffix)
    redis.call('HDEL', job, 'deaths' .. suffix, 'lost_beside' .. suffix, 'lost' .. suffix)
end
local function forget_risk(suffix)
    forget_losses(suffix)
    redis.call('HDEL', job, 'risk' .. suffix, 'holder' .. suffix, 'woken' .. suffix)
end
"""
