---------------------------------------------------------------------------------------------------
-- Text.

-- Whether the bytes are UTF-8 (RFC 3629).
local function is_utf8(text)
  local at, length = 1, #text
  local function continues(octet, from, to)
    return octet and octet >= (from or 0x80) and octet <= (to or 0xBF)
  end
  while at <= length do
    local a, b, c, d = text:byte(at, at + 3)
    if a < 0x80 then
      at = at + 1
    elseif a >= 0xC2 and a <= 0xDF and continues(b) then
      at = at + 2
    elseif a >= 0xE0 and a <= 0xEF and continues(c)
      and continues(b, a == 0xE0 and 0xA0, a == 0xED and 0x9F) then
      at = at + 3
    elseif a >= 0xF0 and a <= 0xF4 and continues(c) and continues(d)
      and continues(b, a == 0xF0 and 0x90, a == 0xF4 and 0x8F) then
      at = at + 4
    else
      return false
    end
  end
  return true
end

local function has_control(text)
  return text:find('%c') or text:find('\194[\128-\159]')
end

-- Unicode's white space beyond ASCII.
local function has_wide_space(text)
  return text:find('\194\160') or text:find('\225\154\128') or text:find('\227\128\128')
    or text:find('\226\128[\128-\138\168\169\175]') or text:find('\226\129\159')
end

---------------------------------------------------------------------------------------------------
-- Channels.

-- Two bytes that tell channels apart in cursors: FNV-1a of 32 bits, folded.
local function tag_of(name)
  local hash = 0x811C9DC5
  for at = 1, #name do
    hash = xor(hash, byte(name, at)) % 0x100000000
    -- Times 0x01000193, in two steps because numbers are exact only up to 2^53.
    hash = (hash * 0x193 + hash % 0x100 * 0x1000000) % 0x100000000
  end
  return xor(math.floor(hash / 0x10000), hash % 0x10000)
end

-- Why a text is no channel's name; nil if it is one.
local function name_fault(name)
  if #name == 0 or #name > 200 then return 'has 1 to 200 bytes' end
  if name:find('[%s%c{}*?,]') then
    return 'holds no white space, no control characters and none of { } * ? ,'
  end
  if name:find('[\128-\255]')
    and (not is_utf8(name) or has_control(name) or has_wide_space(name)) then
    return 'is UTF-8 without white space and control characters'
  end
  if name:byte() == 58 then return "does not begin with ':'" end
  if name == '.' or name == '..' then return "is neither '.' nor '..'" end
end

-- What is known of the busiest few thousand channels, by key: the second in which their expiries were
-- moved last, and their cursors' end. Flat tables, and no more: Lua's collector walks over all that is
-- kept, again and again, so that a table for each channel costs more than it saves. In two
-- generations: when the young one is full, it becomes the old one.
local GENERATION = 2048
local moved, moved_before, moved_count = {}, {}, 0
local suffixes, suffix_count, suffix_life = {}, 0, nil

local function note_moved(key, second)
  if not moved[key] then
    if moved_count >= GENERATION then
      moved, moved_before, moved_count = {}, moved, 0
    end
    moved_count = moved_count + 1
  end
  moved[key] = second
end

-- The rules of a key's channel, or nil and a refusal.
local function rules_of(key)
  if sub(key, 1, #PREFIX) ~= PREFIX then
    return nil, redis.error_reply("WRONGPREFIX the key must begin with '" .. PREFIX .. "'")
  end
  local colon = find(key, ':', #PREFIX + 1, true)
  return colon and NAMED[sub(key, #PREFIX + 1, colon - 1)] or DEFAULT
end

-- What follows from a namespace's rules. Numbers that are only handed on to Redis are text, because
-- writing one down costs as much as a GET.
local function work_out(rules)
  local size, ttl = rules[1], rules[2]
  -- Expiries are moved only when they are older than this, so that things live a little longer.
  rules.slack = math.max(math.floor(ttl / 16000), 1)
  rules.is_live, rules.size = size == 0, tostring(size)
  rules.history_ms = ('%.0f'):format(ttl + rules.slack * 1000)
  rules.top_ms = ('%.0f'):format(math.max(TOP_MS, 2 * ttl) + rules.slack * 1000)
end

local function prepare()
  call, attempt, may = redis.call, redis.pcall, redis.acl_check_cmd
  byte, sub, find, kind, xor = string.byte, string.sub, string.find, type, bit.bxor
  work_out(DEFAULT)
  for _, rules in pairs(NAMED) do work_out(rules) end
end

