---------------------------------------------------------------------------------------------------
-- The life of the data, 16 hexadecimal digits: a hash of the replication's id, new at each restart
-- and promotion (but not if those are trusted), and of the epoch's key, gone with a flush.

local life, life_second, life_tenth, made = nil, nil, nil, 0
-- What the frames of this life begin with.
local announcement
-- INFO is dear, so that publishing asks once in each tenth of a second. A restart begins with nothing
-- known; a flush is seen at once, because then the channel's last id is missing (see open). What is
-- left is a server that is demoted and promoted again within that time. Even then a false life harms
-- nobody: a frame is believed only if its link fits, and reads always ask.

local function life_of(replication, epoch)
  return redis.sha1hex((TRUSTS and 'trust' or replication) .. '\n' .. epoch):sub(1, 16)
end

local function present_life()
  local epoch, replication = call('GET', EPOCH), nil
  if not (TRUSTS and epoch) then
    replication = call('INFO', 'replication'):match('\nmaster_replid:(%x+)')
  end
  if not epoch then
    made = made + 1
    local time = call('TIME')
    epoch = redis.sha1hex(replication .. time[1] .. '.' .. time[2] .. '.' .. made)
    call('SET', EPOCH, epoch)
  end
  life = life_of(replication, epoch)
  announcement = MARK .. life .. ' '
end

-- The time of this call: in seconds and in ms, and a number of 0 to 4 by chance.
local second, now, chance

local function look_at_the_clock()
  local time = call('TIME')
  local micro = time[2]
  second = time[1]
  if #micro < 6 then micro = ('0'):rep(6 - #micro) .. micro end
  now, chance = second .. sub(micro, 1, 3), byte(micro, 6) % 5
  local tenth = byte(micro)
  if tenth ~= life_tenth or second ~= life_second then
    present_life()
    life_second, life_tenth = second, tenth
  end
end

---------------------------------------------------------------------------------------------------
-- Cursors: `<id>.<8 characters>`, three bytes of the life and two of the channel.

-- Crockford's alphabet, lower case.
local ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

local function cursor(key, id)
  if suffix_life ~= life or suffix_count >= GENERATION then
    suffixes, suffix_count, suffix_life = {}, 0, life
  end
  local suffix = suffixes[key]
  if not suffix then
    local tag = tonumber(sub(life, 1, 6), 16) * 0x10000 + tag_of(sub(key, #PREFIX + 1))
    suffix = ''
    for _ = 1, 8 do
      local digit = tag % 32
      tag, suffix = (tag - digit) / 32, sub(ALPHABET, digit + 1, digit + 1) .. suffix
    end
    suffix = '.' .. suffix
    suffixes[key], suffix_count = suffix, suffix_count + 1
  end
  return id .. suffix
end

-- The first id of this millisecond, or the one after the last id, whichever is above: ids rise
-- whatever the clock does. None if the last id is none.
local function id_above(last)
  if not last then return now .. '-0' end
  -- Of the same length, texts compare as numbers do. 13 digits are the times from 2001 to 2286.
  if byte(last, 14) == 45 and #now == 13 then
    if last < now then return now .. '-0' end
    local next = sub(last, 1, 13) == now and NEXT[sub(last, 15)]
    if next then return now .. next end
  end
  local last_ms, sequence = last:match('^(%d+)-(%d+)$')
  if not last_ms then return nil end
  if tonumber(last_ms) < tonumber(now) then return now .. '-0' end
  -- Beyond 2^53 the next number is none of its own.
  if tonumber(sequence) >= 2 ^ 53 then return ('%.0f-0'):format(last_ms + 1) end
  return last_ms .. '-' .. ('%.0f'):format(sequence + 1)
end

local function is_above(one, other)
  local one_ms, one_sequence = one:match('^(%d+)-(%d+)$')
  local other_ms, other_sequence = other:match('^(%d+)-(%d+)$')
  if one_ms ~= other_ms then return tonumber(one_ms) > tonumber(other_ms) end
  return tonumber(one_sequence) > tonumber(other_sequence)
end

