"""Which job a worker's death counts against: the one that it was working on, where that is known, and no other.

A recording may kill its worker (the engine runs out of memory, say), and must not do so for ever: after so many deaths
its job fails as `worker_lost`. But a worker also dies by `kill -9`, by a power cut, or because of something else that
it had in hand; then nobody's job may fail. A death does not say which it was. So

- a death counts against a job (or a chunk of one) only where that was all the dead worker had in hand, from its claim
  on: `deaths` in the record;
- beside other work it is free of charge, but noted: `lost_beside`. What was lost twice like that is a suspect: a
  worker claims it only when nothing else is in hand, and takes nothing beside it (actors/hand.py). If it does kill its
  workers, it now does so alone, and each death counts;
- what goes forward is not to blame: `deaths` and `lost_beside` begin at zero again when a cut announces a new chunk,
  and are gone with a finished step or chunk;
- fetching a url decodes nothing, risks nothing and is never blamed.

So a recording that kills its workers costs at most two deaths beside others and `MAX_JOB_ATTEMPTS` alone, and a sound
job fails only where its worker is killed from outside that often while that job is all it has. Fields of the record, of
a chunk with `:{number}` at their end: `risk` while a worker holds it (`alone` or `beside`), `deaths`, `lost_beside`.
"""

from collections.abc import Sequence

import msgspec

#: Number of deaths of a worker with other work after which a job runs alone.
_SUSPECT_AFTER = 2


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
    redis.call('HINCRBY', job, (risk == 'alone' and 'deaths' or 'lost_beside') .. suffix, 1)
    redis.call('HDEL', job, 'risk' .. suffix)
end
local function deaths(suffix) return tonumber(get('deaths' .. suffix) or '0') end
local function must_be_alone(suffix, kind)
    return kind == 'shared' and tonumber(get('lost_beside' .. suffix) or '0') >= {_SUSPECT_AFTER}
end
-- ARGV from `first` on: what risk_args gives.
local function note_risk(suffix, first)
    if ARGV[first] == 'none' then return end
    for i = first + 1, #ARGV do
        local id, number = string.match(ARGV[i], '^([^/]+)/?(%d*)$')
        local other, field = 'bs:job:' .. id, number == '' and 'risk' or 'risk:' .. number
        if redis.call('HEXISTS', other, field) == 1 then redis.call('HSET', other, field, 'beside') end
    end
    redis.call('HSET', job, 'risk' .. suffix, #ARGV > first and 'beside' or 'alone')
end
local function forget_risk(suffix)
    redis.call('HDEL', job, 'risk' .. suffix, 'deaths' .. suffix, 'lost_beside' .. suffix)
end
"""
