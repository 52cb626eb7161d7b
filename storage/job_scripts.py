"""The Lua that changes a job's record: each script is one atomic step, so that a cancel and a finish cannot both win.

Times come from Redis's own clock, so that workers whose clocks differ agree on who holds a lease. Every script begins
with PRELUDE, which keeps the indexes in step with the status. Keys, all in database 1:

    bs:job:{id}               hash: the record
    bs:events:{id}            stream: what happened to the job, for those who wait; see job_events.py
    bs:chunks:{id}            hash: chunk number -> what is known of it (chunk_scripts.py)
    bs:done:{id}              set: numbers of the chunks whose results are stored
    bs:jobs:{owner}[:status]  sorted set, scores 0: ids in the order of creation, listed by lexical range
    bs:status:{status}        sorted set: id -> when it took this status, for the janitor
    bs:waiting:{client}       set: ids of the client's jobs that wait for their upload or for a worker
    bs:leases                 sorted set: id -> when the worker's lease ends
    bs:expiring               sorted set: id -> when the record and its objects are to be removed
    bs:deleted                sorted set: id -> when it was deleted, so that a late writer's objects are swept
    bs:outbox                 sorted set: id -> when its end is to be posted to whoever waits for it (outbox.py)
    bs:wake:{process}         stream: written to when an API process is to read another job's events (job_events.py)
    bs:answer:{request}       what a change was answered, for a minute: redis-py repeats a script whose answer was lost
"""

from storage import risk
from storage.outbox import GIVE_UP_SECONDS

#: Events kept for a job; a late listener reads the story from there.
EVENTS_KEPT = 10_000

#: How long the answer of a change is kept, in seconds: longer than redis-py goes on repeating it.
_ANSWER_SECONDS = 60

PRELUDE = f"""
if KEYS[5] then
    local told = redis.call('GET', KEYS[5])
    if told then return cjson.decode(told) end
end
local function answer(...)
    if KEYS[5] then redis.call('SET', KEYS[5], cjson.encode({{...}}), 'EX', {_ANSWER_SECONDS}) end
    return {{...}}
end
local job, events, chunks, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local function get(field) return redis.call('HGET', job, field) end
local function announce(...) redis.call('XADD', events, 'MAXLEN', '~', '{EVENTS_KEPT}', '*', ...) end
local function move(from, to)
    local id, owner, client = get('job_id'), get('owner'), get('client')
    redis.call('HSET', job, 'status', to)
    if client then redis.call(to == 'pending' and 'SADD' or 'SREM', 'bs:waiting:' .. client, id) end
    if from ~= to then
        redis.call('ZREM', 'bs:jobs:' .. owner .. ':' .. from, id)
        redis.call('ZADD', 'bs:jobs:' .. owner .. ':' .. to, 0, id)
    end
    redis.call('ZREM', 'bs:status:' .. from, id)
    redis.call('ZADD', 'bs:status:' .. to, string.format('%.3f', now), id)
    redis.call('ZREM', 'bs:expiring', id)
    redis.call('HDEL', job, 'expires_at', 'upload')
    if to ~= 'processing' then
        redis.call('ZREM', 'bs:leases', id)
        redis.call('HDEL', job, 'token')
        for _, number in ipairs(redis.call('HKEYS', chunks)) do redis.call('ZREM', 'bs:leases', id .. '/' .. number) end
    end
end
local function finish(retention)
    redis.call('HSET', job, 'completed_at', string.format('%.3f', now))
    -- In the same step as the end, so that whoever waits for it is told of it whatever dies next (outbox.py).
    redis.call('ZADD', 'bs:outbox', string.format('%.3f', now), get('job_id'))
    if tonumber(retention) > 0 then
        local ends = string.format('%.3f', now + retention)
        redis.call('HSET', job, 'expires_at', ends)
        redis.call('ZADD', 'bs:expiring', ends, get('job_id'))
    end
end
local function hold(lease)
    redis.call('ZADD', 'bs:leases', string.format('%.3f', now + lease), get('job_id'))
end
-- Who cuts or assembles lets go. The chunks that are announced go on; a job without any waits again.
local function let_go(status)
    if redis.call('HLEN', chunks) == 0 then
        move(status, 'pending')
        announce('type', 'pending')
    else
        redis.call('ZREM', 'bs:leases', get('job_id'))
        redis.call('HDEL', job, 'token')
    end
end
local function lease_left()
    return tonumber(redis.call('ZSCORE', 'bs:leases', get('job_id')) or '0') - now
end
local status = get('status')
if not status then return {{'missing'}} end
"""

#: How long a request that made a job is remembered, in seconds.
_ONCE_SECONDS = 86_400

#: KEYS[5]: only of a request that is to make one job (idempotency.py). ARGV: id, owner, status, when it took it, when
#: it is to be removed or '', the request's fingerprint or '', the client or '', how many of the client's jobs may wait,
#: how many in all, field, value, ... Without PRELUDE: there is no record yet. Returns 1; 0: there is one, the job was
#: deleted not long ago, or the request has made another; -1: too many wait; -2: too many of the client's wait.
CREATE = f"""
local job, events, once = KEYS[1], KEYS[2], KEYS[5]
local id, owner, status = ARGV[1], ARGV[2], ARGV[3]
local made = once and redis.call('HGET', once, 'job_id')
if made and made ~= id and redis.call('EXISTS', 'bs:job:' .. made) == 1 then return 0 end
if redis.call('EXISTS', job) == 1 or redis.call('ZSCORE', 'bs:deleted', id) then return 0 end
local client = ARGV[7]
if client ~= '' then
    local waiting = redis.call('ZCARD', 'bs:status:awaiting_upload') + redis.call('ZCARD', 'bs:status:pending')
    if waiting >= tonumber(ARGV[9]) then return -1 end
    if redis.call('SCARD', 'bs:waiting:' .. client) >= tonumber(ARGV[8]) then return -2 end
    redis.call('HSET', job, 'client', client)
    redis.call('SADD', 'bs:waiting:' .. client, id)
end
for i = 10, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', 'bs:jobs:' .. owner, 0, id)
redis.call('ZADD', 'bs:jobs:' .. owner .. ':' .. status, 0, id)
redis.call('ZADD', 'bs:status:' .. status, ARGV[4], id)
if ARGV[5] ~= '' then redis.call('ZADD', 'bs:expiring', ARGV[5], id) end
redis.call('XADD', events, '*', 'type', status)
-- A record that was lost: nobody knows any more who was told of the end.
local ended = redis.call('HGET', job, 'completed_at')
if ended and redis.call('TIME')[1] - ended < {GIVE_UP_SECONDS} then redis.call('ZADD', 'bs:outbox', ended, id) end
if once then
    redis.call('HSET', once, 'job_id', id, 'fingerprint', ARGV[6])
    redis.call('EXPIRE', once, {_ONCE_SECONDS})
end
return 1
"""

#: ARGV: new status, statuses it may follow (`,a,b,`), token or '', retention (s) if final or '', field, value, ...
#: Returns ok | missing | conflict | fenced, and the status before.
TRANSITION = (
    PRELUDE
    + """
if not string.find(ARGV[2], ',' .. status .. ',', 1, true) then return {'conflict', status} end
if ARGV[3] ~= '' and get('token') ~= ARGV[3] then return {'fenced', status} end
move(status, ARGV[1])
if ARGV[4] ~= '' then finish(ARGV[4]) end
-- The transcript says it from here on: memory is not for text that the bucket has.
if ARGV[1] == 'completed' and get('told') then
    for _, entry in ipairs(redis.call('XRANGE', events, '-', '+')) do
        if entry[2][2] == 'segment' then redis.call('XDEL', events, entry[1]) end
    end
    redis.call('HDEL', job, 'told')
end
for i = 5, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
announce('type', ARGV[1])
return answer('ok', status)
"""
)

#: ARGV: token, worker, lease in seconds, most deaths, retention in seconds, risk. The death of the worker that held it
#: counts as risk.py says, so that a recording that kills its worker does not circle for ever.
#: Returns ok | suspect | exhausted | missing | conflict, and the status before. The same token may ask again: redis-py
#: repeats a script whose answer was lost.
CLAIM = (
    PRELUDE
    + risk.LUA
    + """
if status == 'processing' and get('token') == ARGV[1] then return {'ok', status} end
if not (status == 'pending' or (status == 'processing' and lease_left() <= 0)) then return {'conflict', status} end
count_loss('')
if deaths('') >= tonumber(ARGV[4]) then
    move(status, 'failed')
    finish(ARGV[5])
    redis.call('HSET', job, 'error_code', 'worker_lost',
        'error', 'the worker died ' .. deaths('') .. ' times on this recording, the limit is ' .. ARGV[4])
    announce('type', 'failed')
    return {'exhausted', status}
end
if must_be_alone('', ARGV[6]) then return {'suspect', status} end
local attempts = redis.call('HINCRBY', job, 'attempts', 1)
move(status, 'processing')
redis.call('HSET', job, 'token', ARGV[1], 'worker', ARGV[2])
note_risk('', 6)
redis.call('HSETNX', job, 'started_at', string.format('%.3f', now))
hold(ARGV[3])
announce('type', 'processing', 'attempt', attempts)
return {'ok', status}
"""
)

#: ARGV: token, lease in seconds, progress (0 to 100). A sign of life: renews the lease, raises the progress, and tells
#: the worker whether the job is still its own.
#: Returns ok | missing | conflict | fenced, and the status.
BEAT = (
    PRELUDE
    + risk.LUA
    + """
if get('token') ~= ARGV[1] then take_back_loss('', ARGV[1]) end
if status ~= 'processing' then return {'conflict', status} end
if get('token') ~= ARGV[1] then return {'fenced', status} end
hold(ARGV[2])
if tonumber(ARGV[3]) > tonumber(get('progress') or '0') then
    redis.call('HSET', job, 'progress', ARGV[3])
    announce('type', 'progress', 'progress', ARGV[3])
end
return {'ok', status}
"""
)

#: ARGV: token, number of the first segment, language, its probability, segment as JSON, ... What is found of a
#: recording without chunks. `told` in the record counts them: a segment that was told is not told again.
#: Returns ok | missing | conflict | fenced, and the status.
TELL = (
    PRELUDE
    + risk.LUA
    + """
if status ~= 'processing' then return {'conflict', status} end
if get('token') ~= ARGV[1] then return {'fenced', status} end
redis.call('HSETNX', job, 'language', ARGV[3])
redis.call('HSETNX', job, 'language_probability', ARGV[4])
local told = tonumber(get('told') or '0')
for i = 5, #ARGV do
    if ARGV[2] + i - 5 == told then
        announce('type', 'segment', 'number', told, 'segment', ARGV[i])
        told = told + 1
        forget_losses('')
    end
end
redis.call('HSET', job, 'told', told)
return {'ok', status}
"""
)

#: ARGV: token. The attempt does not count. Returns ok | missing | conflict | fenced, and the status before.
RELEASE = (
    PRELUDE
    + """
if status ~= 'processing' then return {'conflict', status} end
if get('token') ~= ARGV[1] then return {'fenced', status} end
redis.call('HINCRBY', job, 'attempts', -1)
redis.call('HDEL', job, 'risk')
let_go(status)
return answer('ok', status)
"""
)

#: ARGV: token, source as JSON. The recording of a url is in the store: the job waits anew, for its transcription, which
#: begins with no attempts and at no time. Returns ok | missing | conflict | fenced, and the status before.
FETCHED = (
    PRELUDE
    + """
if status ~= 'processing' then return {'conflict', status} end
if get('token') ~= ARGV[1] then return {'fenced', status} end
redis.call('HSET', job, 'source', ARGV[2], 'attempts', '0')
redis.call('HDEL', job, 'started_at')
move(status, 'pending')
announce('type', 'pending')
return answer('ok', status)
"""
)

#: A job whose lease ran out is free for another worker. Returns ok | missing | conflict, and the status before.
EXPIRE_LEASE = (
    PRELUDE
    + """
if status ~= 'processing' or lease_left() > 0 then return {'conflict', status} end
let_go(status)
return answer('ok', status)
"""
)

#: How long a deleted job's events stay, in seconds: so long that whoever listens hears of it.
_DELETED_SECONDS = 60

#: The record and every index entry go; the id is remembered as deleted.
DELETE = (
    PRELUDE
    + f"""
local id, owner = get('job_id'), get('owner')
redis.call('ZREM', 'bs:jobs:' .. owner, id)
redis.call('ZREM', 'bs:jobs:' .. owner .. ':' .. status, id)
redis.call('ZREM', 'bs:status:' .. status, id)
redis.call('ZREM', 'bs:leases', id)
redis.call('ZREM', 'bs:expiring', id)
for _, number in ipairs(redis.call('HKEYS', chunks)) do redis.call('ZREM', 'bs:leases', id .. '/' .. number) end
local client = get('client')
if client then redis.call('SREM', 'bs:waiting:' .. client, id) end
redis.call('ZADD', 'bs:deleted', string.format('%.3f', now), id)
redis.call('ZREM', 'bs:outbox', id)
redis.call('DEL', job, chunks, done, 'bs:delivery:' .. id, 'bs:deliveries:' .. id)
announce('type', 'deleted')
redis.call('EXPIRE', events, {_DELETED_SECONDS})
return {{'ok', status}}
"""
)

#: KEYS: bs:work. ARGV: bytes, seconds. Sums that forget: the last ten jobs or so count.
RECORD_WORK = """
for i, field in ipairs({'bytes', 'seconds', 'jobs'}) do
    local given = ({ARGV[1], ARGV[2], 1})[i]
    local kept = tonumber(redis.call('HGET', KEYS[1], field) or '0') * 0.9
    redis.call('HSET', KEYS[1], field, string.format('%.6f', kept + given))
end
"""
