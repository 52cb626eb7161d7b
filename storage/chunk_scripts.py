"""The Lua of a job's chunks: announced by the one who cuts, claimed and finished by any worker, counted as a set.

In bs:leases, `{id}/{number}` is the lease of a chunk and `{id}` alone the lease of who cuts or assembles. bs:done is a
set, so that finishing twice counts once. In the record: `sent`, how many chunks have had a message; `phase`, "cut" once
every chunk is announced; `token:{number}` and `attempts:{number}` of each chunk, and what risk.py says.
"""

from storage import risk
from storage.job_scripts import PRELUDE

_CHUNKS = (
    PRELUDE
    + risk.LUA
    + """
local function lease_name(number) return get('job_id') .. '/' .. number end
local function leased(number)
    return tonumber(redis.call('ZSCORE', 'bs:leases', lease_name(number)) or '0') > now
end
local function all_done()
    return get('phase') == 'cut' and redis.call('SCARD', done) == redis.call('HLEN', chunks)
end
-- Chunks that get a message now: as many are on their way at once as the job may use workers.
local function admit(parallel)
    local sent = tonumber(get('sent') or '0')
    local announced, finished = redis.call('HLEN', chunks), redis.call('SCARD', done)
    local first = sent
    while sent < announced and sent - finished < tonumber(parallel) do sent = sent + 1 end
    redis.call('HSET', job, 'sent', sent)
    local admitted = {}
    for number = first, sent - 1 do table.insert(admitted, tostring(number)) end
    return admitted
end
if status ~= 'processing' then return {'conflict', status} end
"""
)

#: ARGV: token of who cuts, number, chunk as JSON, most chunks on their way at once, field, value, ...
#: Returns ok | fenced | conflict | missing, the status, and the numbers of chunks to send.
ANNOUNCE = (
    _CHUNKS
    + """
if get('token') ~= ARGV[1] then return {'fenced', status} end
if redis.call('HSETNX', chunks, ARGV[2], ARGV[3]) == 1 then forget_losses('') end
for i = 5, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
return answer('ok', status, unpack(admit(ARGV[4])))
"""
)

#: ARGV: token of who cuts, field, value, ... The last chunk is announced; whoever finishes the last one assembles.
#: Returns ok | fenced | conflict | missing, the status, and `all` when every chunk is done already.
FINISH_CUT = (
    _CHUNKS
    + """
if get('token') ~= ARGV[1] then return {'fenced', status} end
for i = 2, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
redis.call('HSET', job, 'phase', 'cut', 'attempts', 0)
redis.call('HDEL', job, 'token')
forget_risk('')
redis.call('ZREM', 'bs:leases', get('job_id'))
return answer('ok', status, all_done() and 'all' or 'some')
"""
)

#: ARGV: number, token, lease in seconds, most deaths, retention in seconds, risk.
#: Returns ok | done | suspect | exhausted | missing | conflict, the status, and the chunk as JSON.
CLAIM_CHUNK = (
    _CHUNKS
    + """
local number = ARGV[1]
if redis.call('SISMEMBER', done, number) == 1 then return {'done', status} end
local known = redis.call('HGET', chunks, number)
if not known then return {'conflict', status} end
if get('token:' .. number) == ARGV[2] then return {'ok', status, known} end
if leased(number) then return {'conflict', status} end
local chunk = ':' .. number
count_loss(chunk)
if deaths(chunk) >= tonumber(ARGV[4]) then
    move(status, 'failed')
    finish(ARGV[5])
    redis.call('HSET', job, 'error_code', 'worker_lost',
        'error', 'the worker died ' .. deaths(chunk) .. ' times on one stretch, the limit is ' .. ARGV[4])
    announce('type', 'failed')
    return {'exhausted', status}
end
if must_be_alone(chunk, ARGV[6]) then return {'suspect', status} end
redis.call('HINCRBY', job, 'attempts:' .. number, 1)
redis.call('HSET', job, 'token:' .. number, ARGV[2])
note_risk(chunk, 6)
redis.call('ZADD', 'bs:leases', string.format('%.3f', now + ARGV[3]), lease_name(number))
return {'ok', status, known}
"""
)

#: ARGV: number, token, lease in seconds. Returns ok | fenced | missing | conflict, and the status.
BEAT_CHUNK = (
    _CHUNKS
    + """
if get('token:' .. ARGV[1]) ~= ARGV[2] then
    take_back_loss(':' .. ARGV[1], ARGV[2])
    return {'fenced', status}
end
redis.call('ZADD', 'bs:leases', string.format('%.3f', now + ARGV[3]), lease_name(ARGV[1]))
return {'ok', status}
"""
)

#: ARGV: number, token, seconds of the recording that are done with it, most chunks on their way at once.
#: Returns ok | fenced | missing | conflict, the status, `all` when it was the last one, and the chunks to send.
FINISH_CHUNK = (
    _CHUNKS
    + """
local number = ARGV[1]
if get('token:' .. number) ~= ARGV[2] then return {'fenced', status} end
if redis.call('SADD', done, number) == 1 then
    announce('type', 'chunk', 'number', number)
    local seconds = redis.call('HINCRBYFLOAT', job, 'seconds_done', ARGV[3])
    local length = tonumber(get('duration') or get('length_estimate') or '0')
    local progress = length > 0 and math.min(99, math.floor(1000 * seconds / length) / 10) or 0
    if progress > tonumber(get('progress') or '0') then
        redis.call('HSET', job, 'progress', progress)
        announce('type', 'progress', 'progress', progress)
    end
end
redis.call('ZREM', 'bs:leases', lease_name(number))
redis.call('HDEL', job, 'token:' .. number, 'attempts:' .. number)
forget_risk(':' .. number)
return answer('ok', status, all_done() and 'all' or 'some', unpack(admit(ARGV[4])))
"""
)

#: ARGV: number, token, error code, error, retention in seconds: a chunk that cannot be done fails its job.
#: Returns ok | fenced | missing | conflict, and the status.
FAIL_CHUNK = (
    _CHUNKS
    + """
if get('token:' .. ARGV[1]) ~= ARGV[2] then return {'fenced', status} end
move(status, 'failed')
finish(ARGV[5])
redis.call('HSET', job, 'error_code', ARGV[3], 'error', ARGV[4])
announce('type', 'failed')
return answer('ok', status)
"""
)

#: ARGV: number. A chunk whose lease ran out is free for another worker.
#: Returns ok | missing | conflict, and the status.
EXPIRE_CHUNK = (
    _CHUNKS
    + """
if leased(ARGV[1]) then return {'conflict', status} end
redis.call('ZREM', 'bs:leases', lease_name(ARGV[1]))
return answer('ok', status)
"""
)

#: ARGV: number, token. The attempt does not count. Returns ok | fenced | missing | conflict, and the status.
RELEASE_CHUNK = (
    _CHUNKS
    + """
local number = ARGV[1]
if get('token:' .. number) ~= ARGV[2] then return {'fenced', status} end
redis.call('ZREM', 'bs:leases', lease_name(number))
redis.call('HDEL', job, 'token:' .. number, 'risk:' .. number)
redis.call('HINCRBY', job, 'attempts:' .. number, -1)
return answer('ok', status)
"""
)

#: Chunks that were sent and are neither done nor in a worker's hands: their messages may be gone.
#: Returns ok | missing | conflict, the status, `held` when a worker has the job or one of its chunks, and the numbers.
STRANDED = (
    _CHUNKS
    + """
local stranded, held = {}, lease_left() > 0
for number = 0, tonumber(get('sent') or '0') - 1 do
    if redis.call('SISMEMBER', done, number) == 0 then
        if leased(number) then held = true else table.insert(stranded, tostring(number)) end
    end
end
return {'ok', status, held and 'held' or 'free', unpack(stranded)}
"""
)
