---------------------------------------------------------------------------------------------------
-- Reading.

-- How many keys were evicted so far: a place before the first message goes on only while there are no
-- more. The number begins anew with a restart. Where that is trusted and keys may be evicted, it is
-- made one that no other life of the server has.
local function evicted_keys(replication)
  local count = call('INFO', 'stats'):match('\nevicted_keys:(%d+)') or '0'
  if not TRUSTS or find(call('INFO', 'memory'), '\nmaxmemory_policy:noeviction', 1, true) then
    return count
  end
  return tonumber(redis.sha1hex(replication .. '\n' .. count):sub(1, 12), 16)
end

-- Where bytes are bounded, entries are read so many at a time: each may be as large as a message may be.
local STEP = 32

-- The entries between two places, in the order of the command, and 1 if the rest was left out because of
-- the bytes: the entry with which there are more of them than `most` is the last. 0: there is no bound.
local function entries_of(command, history, from, to, limit, most)
  if most == 0 then return call(command, history, from, to, 'COUNT', limit), 0 end
  local found, size = {}, 0
  while #found < limit do
    local step = math.min(limit - #found, STEP)
    local entries = call(command, history, from, to, 'COUNT', step)
    for _, entry in ipairs(entries) do
      found[#found + 1] = entry
      size = size + #entry[2][1] + #entry[2][2]
      if size > most then return found, 1 end
    end
    if #entries < step then break end
    from = '(' .. entries[step][1]
  end
  return found, 0
end

-- Replies { life, last id or '', evicted keys, time in ms, 1 if there are more than so many bytes, the
-- frames of the entries }. Bounds are exclusive; with `newest` = '1' the last entries within them, else the
-- first; oldest first.
local function read(keys, args)
  if not call then prepare() end
  local key, after, before, newest = keys[1], args[1], args[2], args[4]
  local limit, most = tonumber(args[3]), tonumber(args[5])
  if #keys ~= 1 or not limit or not most then return invalid('one key and five arguments are needed') end
  local rules, refusal = rules_of(key)
  if not rules then return refusal end
  local tagged = '{' .. key .. '}:'
  local history = tagged .. 'h'
  local replication = call('INFO', 'replication')
  if replication:match('\nrole:(%a+)') ~= 'master' then
    return redis.error_reply('READONLY only a master is read')
  end
  local epoch = call('GET', EPOCH)
  if not epoch then return redis.error_reply('NOEPOCH no node has linked up since the flush') end
  replication = replication:match('\nmaster_replid:(%x+)')
  local present = life_of(replication, epoch)
  local from = after ~= '' and '(' .. after or '-'
  local to = before ~= '' and '(' .. before or '+'
  local time = call('TIME')
  local reply = {
    present,
    call('GET', tagged .. 'top') or newest_id(history) or '',
    evicted_keys(replication),
    time[1] * 1000 + math.floor(time[2] / 1000),
  }
  local entries, first, last, step
  if newest == '1' then
    entries, reply[5] = entries_of('XREVRANGE', history, to, from, limit, most)
    first, last, step = #entries, 1, -1
  else
    entries, reply[5] = entries_of('XRANGE', history, from, to, limit, most)
    first, last, step = 1, #entries, 1
  end
  for at = first, last, step do
    local id, fields = entries[at][1], entries[at][2]
    -- Others are not of the function's making.
    if fields[1]:find('^[%d-]+ %d+\n') then
      reply[#reply + 1] = MARK .. present .. ' ' .. id .. ' ' .. fields[1] .. fields[2]
    end
  end
  return reply
end

