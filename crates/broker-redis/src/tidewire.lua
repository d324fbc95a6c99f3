#!lua name=@library@
--
-- Tidewire's function library for Redis 7 and Valkey: all that is ever stored is stored here.
--
--   FCALL    @library@_publish 1 @prefix@:<channel> <body> [<messageId>]
--   FCALL    @library@_publish 1 @prefix@:<channel> <envelope> <messageId or ""> <scope> <digest>
--   FCALL    @library@_publish_many 0 (@prefix@:<channel> <envelope> <messageId or ""> <scope> <digest>)...
--   FCALL_RO @library@_read    1 @prefix@:<channel> <after or ""> <before or ""> <limit> <newest>
--   FCALL    @library@_claim   0 <node> <most> (<user> <count>)...
--   FCALL_RO @library@_about   0
--
-- Backends use the first form, gateways the others. The nodes load the library: they replace what
-- stands between at signs by their configuration. docs/redis.md tells what is kept under which key.
--
-- It costs Redis's one thread, so that the usual way through it makes few calls and few texts; what is
-- odd about it for that reason says so. `scripts/redis-cost` measures it.

local PREFIX = '@prefix@:'
local FORMAT, REVISION, DIGEST = '@format@', '@revision@', '@digest@'

-- The namespaces' rules, each { size, ttl in ms }, and the bounds.
local BODY_BYTES, FRAME_BYTES, DEDUPE_MS = @body_bytes@, @frame_bytes@, '@dedupe_ms@'
-- Whether a restart and a promotion lose nothing that was acknowledged: then neither begins a new life.
local TRUSTS = @trusts@
local DEFAULT = @default@
local NAMED = @named@

-- Small numbers as texts, and after each the next with its hyphen.
local TEXT, NEXT = {}, {}
for number = 0, 300 do
  TEXT[number] = number .. ''
  NEXT[number .. ''] = '-' .. (number + 1)
end

-- The random text that is gone after a flush.
local EPOCH = PREFIX .. '{node}:epoch'
-- Begins a stored message's frame: the marker, the version, the flag of stored ones.
local MARK = '\193\1\128'
-- Begins the frame of a live message whose messageId was given besides the body.
local NAMED_MARK = '\193\1\64'
-- The last id outlives the messages: 30 days, or twice their time.
local TOP_MS = 30 * 24 * 3600 * 1000
local MAX_ID, MAX_EVENT, MAX_NESTING = 128, 64, 128

-- What is called for every message. Redis forbids the use of anything global while the library loads,
-- and looking it up each time costs.
local call, attempt, may, byte, sub, find, kind, xor

---------------------------------------------------------------------------------------------------
-- Refusals. Nothing has been written when one is returned.

local function invalid(why)
  return redis.error_reply('INVALID ' .. why)
end

local function too_large(length, most)
  return redis.error_reply('TOOLARGE ' .. length .. ' bytes; at most ' .. most .. ' are allowed')
end

---------------------------------------------------------------------------------------------------
-- Text.

-- Whether the bytes are UTF-8 (RFC 3629).
local function is_utf8(text)
  local at, length = 1, #text
  local function continues(byte, from, to)
    return byte and byte >= (from or 0x80) and byte <= (to or 0xBF)
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

---------------------------------------------------------------------------------------------------
-- Bodies of backends: refused here is what a gateway could not deliver.

local json
local MEMBERS = { event = true, payload = true, messageId = true, exclude = true }

-- The JSON value of a text, or nil and why it is none.
local function decode(text)
  if not json then
    -- One of our own: its settings are not those of other libraries.
    json = cjson.new()
    json.decode_max_depth(MAX_NESTING)
    json.decode_invalid_numbers(false)
  end
  local is_json, value = pcall(json.decode, text)
  if is_json then return value end
  return nil, tostring(value)
end

-- Whether JSON is nested too deep. Few bodies have as many brackets; only those are decoded.
local function is_too_deep(body)
  local count = 0
  for _, bracket in ipairs({ '{', '[' }) do
    local at = find(body, bracket, 1, true)
    while at do
      count = count + 1
      if count > MAX_NESTING then
        local _, fault = decode(body)
        return fault and fault:find('nested', 1, true) ~= nil
      end
      at = find(body, bracket, at + 1, true)
    end
  end
  return false
end

-- Where a JSON text that begins at a place ends, and itself; nil when it does not end.
local function walk_text(body, at)
  local close, slashes = at, nil
  repeat
    close, slashes = find(body, '"', close + 1, true), 0
    if not close then return nil end
    while byte(body, close - 1 - slashes) == 92 do slashes = slashes + 1 end
  until slashes % 2 == 0
  local escape = find(body, '\\', at + 1, true)
  if not escape or escape > close then return close + 1, sub(body, at + 1, close - 1) end
  local value = decode('[' .. sub(body, at, close) .. ']')
  return close + 1, value and value[1]
end

-- Where a JSON value that begins at a place ends, and what it is as far as that matters; nil when
-- unsure.
local function walk_value(body, at)
  local first = byte(body, at)
  if first == 34 then return walk_text(body, at) end
  if first == 123 then return body:match('^%b{}()', at), 0 end
  if first == 91 then return body:match('^%b[]()', at), 0 end
  local word, to = body:match('^([%w.+-]+)()', at)
  return to, word == 'null' and cjson.null or 0
end

-- The members of an object, without a look into the values: a table, false if one stands twice, nil
-- when unsure. It may be mistaken only about texts that are no JSON.
local function walk(body)
  local members, twice = {}, false
  local at = body:match('^[ \t\r\n]*{[ \t\r\n]*()')
  while true do
    local name, from = body:match('^"([^"\\]*)"[ \t\r\n]*:[ \t\r\n]*()', at)
    if not name then return nil end
    local to, value = walk_value(body, from)
    if not to or value == nil then return nil end
    twice = twice or members[name] ~= nil
    members[name] = value
    local mark, following = body:match('^[ \t\r\n]*([,}])[ \t\r\n]*()', to)
    if not mark then return nil end
    if mark == '}' then
      if following <= #body then return nil end
      return not twice and members
    end
    at = following
  end
end

-- Whether an object may have members that must be looked at. Where a name stands once, before a text
-- that is a good one, there is nothing to refuse, whether it is a member of the message or something
-- in its payload.
local function is_plain_enough(body, needs_id)
  if not find(body, '"payload"', 1, true) then return true end
  if find(body, '"exclude"', 1, true) then return false end
  if needs_id and find(body, '"messageId"', 1, true) then return false end
  local _, at = find(body, '"event"', 1, true)
  if not at then return true end
  local event = body:match('^[ \t\r\n]*:[ \t\r\n]*"([^"\\%c\194]+)"', at + 1)
  return event and #event <= MAX_EVENT and event:sub(1, 9) ~= 'tidewire:'
    and not find(body, '"event"', at + 1, true)
end

-- The members of a body that is a message; nil if the body is itself the payload.
local function message_of(body)
  local members = walk(body)
  if members == nil then members = decode(body) end
  if type(members) ~= 'table' or members.payload == nil then return nil end
  for name in pairs(members) do
    if not MEMBERS[name] then return nil end
  end
  return members
end

local function text_fault(text, most)
  if type(text) ~= 'string' then return 'must be a string' end
  if #text == 0 or #text > most then return 'must have 1 to ' .. most .. ' bytes' end
end

-- What is wrong with a message, if anything is.
local function message_fault(members)
  local function given(name)
    local value = members[name]
    if value ~= cjson.null then return value end
  end
  local event, id, exclude = given('event'), given('messageId'), given('exclude')
  local fault = event and text_fault(event, MAX_EVENT)
  if event and not fault then
    if has_control(event) then fault = 'holds no control characters' end
    if event:sub(1, 9) == 'tidewire:' then fault = "must not begin with 'tidewire:'" end
  end
  if fault then return "'event' " .. fault end
  fault = id and text_fault(id, MAX_ID)
  if fault then return "'messageId' " .. fault end
  -- 16 bytes of base64url.
  if exclude and (type(exclude) ~= 'string' or #exclude ~= 22
    or not exclude:find('^[%w_-]+[AQgw]$')) then
    return "'exclude' must be a session's id"
  end
end

-- Checks what a backend publishes: its own messageId, if it has one, and a refusal.
local function check_body(body, id)
  if #body > BODY_BYTES then return nil, too_large(#body, BODY_BYTES) end
  if id and (#id > MAX_ID or (find(id, '[\128-\255]') and not is_utf8(id))) then
    return nil, invalid('a messageId has 1 to ' .. MAX_ID .. ' bytes of UTF-8')
  end
  if byte(body) == 0xC1 then
    return nil, invalid("the byte 0xC1 begins a gateway's own frame")
  end
  local first = byte(body)
  if first and first <= 32 then first = byte(body, find(body, '[^ \t\r\n]') or 1) end
  if first ~= 123 and first ~= 91 then return nil end
  if #body > MAX_NESTING and is_too_deep(body) then
    return nil, invalid('JSON nested deeper than ' .. MAX_NESTING)
  end
  if first == 91 or is_plain_enough(body, not id) then return nil end
  local members = message_of(body)
  if not members then return nil end
  local fault = message_fault(members)
  if fault then return nil, invalid(fault) end
  local own = members.messageId
  return own ~= cjson.null and own or nil
end

---------------------------------------------------------------------------------------------------
-- Publishing.

-- Appends an entry, whose one field is named by its head and holds the body; its id, or an error of
-- Redis. `renew`: the stream may have to be made, and its expiry is moved.
local function append(history, rules, renew, trim, id, head, body)
  local added
  if not renew then
    if trim then
      added = attempt('XADD', history, 'NOMKSTREAM', 'MAXLEN', '~', rules.size, id, head, body)
    else
      added = attempt('XADD', history, 'NOMKSTREAM', id, head, body)
    end
    -- False: the stream is gone (evicted, deleted), and with it its expiry.
    if added then return added end
  end
  added = attempt('XADD', history, 'MAXLEN', '~', rules.size, id, head, body)
  if kind(added) == 'string' then call('PEXPIRE', history, rules.history_ms) end
  return added
end

-- The newest entry's id, if there is an entry.
local function newest_id(history)
  local newest = call('XREVRANGE', history, '+', '-', 'COUNT', '1')[1]
  return newest and newest[1]
end

-- What stands between a frame's id and its body: the link, and the messageId that was given besides
-- the body.
local function head_of(last, id)
  if id == '' then return (last or '-') .. ' 0\n' end
  return (last or '-') .. ' ' .. TEXT[#id] .. '\n' .. id
end

-- Whether the caller may do what is done after the first write. (What comes before it fails by
-- itself, and a messageId whose XADD fails is forgotten.) `many`: the last id may become longer.
local function refusal_of(channel, many)
  local top, over = channel.top_key, channel.over
  local missing = not may('PUBLISH', channel.key, '') and 'PUBLISH'
    or (many or not over) and not may('SET', top, '') and 'SET'
    or over and not may('SETRANGE', top, '0', '') and 'SETRANGE'
    or channel.renew and not may('PEXPIRE', channel.history, '1') and 'PEXPIRE'
  if missing then return redis.error_reply('NOPERM ' .. missing .. ' is not allowed here') end
end

-- Whether the expiries have to be moved.
local function is_due(key, rules)
  local last = moved[key] or moved_before[key]
  if last == second then return false end
  local since = last and second - last
  -- The clock may step back.
  return not since or since < 0 or since >= rules.slack
end

-- What is known of a stored channel while something is published on it; a refusal. Nothing is written.
-- Once something was published: `settle`, whatever happens.
local function open(channel, key, rules, many)
  local tagged = '{' .. key .. '}:'
  local top_key = tagged .. 'top'
  local top = call('GET', top_key)
  channel.key, channel.rules, channel.tagged, channel.top_key = key, rules, tagged, top_key
  channel.history, channel.top, channel.added, channel.scope = tagged .. 'h', top, nil, nil
  local last, renew = top, not top or is_due(key, rules)
  channel.renew, channel.renewed = renew, false
  if not last then last = newest_id(channel.history) end
  -- A channel of which nothing is known may be the first one after a flush.
  if not last then present_life() end
  local place = id_above(last)
  if not place then
    last = newest_id(channel.history)
    place = id_above(last)
  end
  channel.last, channel.place = last, place
  -- Written over where it is as long, which is half as dear as SET, and keeps its expiry.
  channel.over = not renew and #top == #place
  -- One message in five, by chance, trims the stream: nothing has to be counted for that. Of many on
  -- one channel every eighth does so besides.
  channel.trim = chance == 0 and 8 or 1
  return refusal_of(channel, many)
end

-- Under which key a messageId is remembered. The scope's length makes it unambiguous.
local function remembered_as(channel, scope, id)
  if channel.scope ~= scope then
    channel.scope = scope
    channel.ids = channel.tagged .. 'id:' .. (TEXT[#scope] or #scope) .. ':' .. scope .. ':'
  end
  return channel.ids .. id
end

-- Appends after whatever is there: the message's id and its head, or an error of Redis.
local function append_somewhere(channel, place, given, body)
  local history, trim, head = channel.history, channel.trim, head_of(channel.last, given)
  channel.trim = trim % 8 + 1
  local added = append(history, channel.rules, channel.renew, trim == 8, place, head, body)
  if kind(added) == 'table' and find(added.err, 'equal or smaller', 1, true) then
    -- Somebody wrote to the stream or set the last id back: the stream knows better.
    local newest, last = newest_id(history), channel.last
    if newest and not (last and is_above(last, newest)) then last = newest end
    head = head_of(last, given)
    added = append(history, channel.rules, channel.renew, trim == 8, '*', head, body)
  end
  return added, head
end

-- Writes down where the channel is now.
local function settle(channel)
  local added = channel.added
  if not added then return end
  if channel.renewed then
    note_moved(channel.key, second)
    call('SET', channel.top_key, added, 'PX', channel.rules.top_ms)
  elseif channel.over and #channel.top == #added then
    call('SETRANGE', channel.top_key, '0', added)
  else
    call('SET', channel.top_key, added, 'KEEPTTL')
  end
end

-- The one channel of a call that publishes one message, which is settled before anybody hears of it.
local only = {}

-- Publishes on a stored channel that is open: the message's id and 1 for a duplicate, or nil and an
-- error. `given`: the messageId to add to the frame; `id`: the one to remember.
local function store(channel, body, given, id, scope, digest)
  local place = channel.place or id_above(channel.last)
  channel.place = place
  local remembered, free
  if id then
    remembered = remembered_as(channel, scope, id)
    local known = call('SET', remembered, place .. ' ' .. digest, 'NX', 'GET', 'PX', DEDUPE_MS)
    free = not known
    if known and known ~= '' then
      local first, said = known:match('^(%S+) (.*)$')
      if said == digest then
        -- Written anew as it is: what is not written is not waited for by WAIT, though the first
        -- attempt may be on no replica yet.
        call('SET', remembered, known, 'KEEPTTL')
        return first, 1
      end
      return nil, redis.error_reply('CONFLICT another body was published with this messageId')
    end
  end
  local added, head = append_somewhere(channel, place, given, body)
  if kind(added) == 'table' then
    -- Nothing is stored: the messageId is free again. (Who may SET may perhaps not DEL.)
    if remembered then call('SET', remembered, '', 'PX', '1') end
    return nil, added
  end
  channel.last, channel.place, channel.added = added, nil, added
  if channel.renew then channel.renew, channel.renewed = false, true end
  if remembered and not (free and added == place) then
    call('SET', remembered, added .. ' ' .. digest, 'PX', DEDUPE_MS)
  end
  if channel == only then settle(channel) end
  call('PUBLISH', channel.key, announcement .. added .. ' ' .. head .. body)
  return added, 0
end

-- Replies { cursor or '', 1 for a duplicate }; to a gateway { id or '', 1 for a duplicate, life }.
local function publish(keys, args)
  if not call then prepare() end
  local key, body, id, scope, digest = keys[1], args[1], args[2], args[3], args[4]
  if #keys ~= 1 or not body or #args == 3 or #args > 4 then
    return invalid('one key, a body and perhaps a messageId are needed')
  end
  local rules, refusal = rules_of(key)
  if not rules then return refusal end
  if id == '' then id = nil end
  local given = ''
  if scope then
    -- Its envelope has the messageId.
    if #body > FRAME_BYTES then return too_large(#body, FRAME_BYTES) end
  else
    local own
    -- Gateways have looked at it themselves; one that was published to is a good one.
    local fault = not (moved[key] or moved_before[key]) and name_fault(sub(key, #PREFIX + 1))
    if fault then return invalid('a channel name ' .. fault) end
    own, refusal = check_body(body, id)
    if refusal then return refusal end
    given, id = id or '', id or own
  end
  local added, duplicate
  if rules.is_live then
    if given ~= '' then body = NAMED_MARK .. string.char(#given) .. given .. body end
    call('PUBLISH', key, body)
  else
    digest = digest or id and redis.sha1hex(body):sub(1, 20)
    look_at_the_clock()
    refusal = open(only, key, rules, false)
    if refusal then return refusal end
    added, duplicate = store(only, body, given, id, scope or 'd', digest)
    -- The second one is an error.
    if not added then return duplicate end
  end
  if scope then return { added or '', duplicate or 0, added and life or '' } end
  return { added and cursor(key, added) or '', duplicate or 0 }
end

-- One message of a gateway: the line of the answer.
local function publish_one(channels, key, body, id, scope, digest)
  if #body > FRAME_BYTES then return nil, too_large(#body, FRAME_BYTES) end
  local channel = channels[key]
  if not channel then
    local rules, refusal = rules_of(key)
    if not rules then return nil, refusal end
    channel = { rules = rules }
    if not rules.is_live then
      refusal = open(channel, key, rules, true)
      if refusal then return nil, refusal end
    end
    channels[key] = channel
  end
  if channel.rules.is_live then
    call('PUBLISH', key, body)
    return ''
  end
  if id == '' then id = nil end
  local added, duplicate = store(channel, body, '', id, scope, digest)
  if duplicate == 1 then return '=' .. added end
  return added, duplicate
end

-- Many messages of a gateway at once, which costs less. Each fares by itself. Replies lines: the life;
-- then for each message its id, after '=' that of the first one if it is a duplicate, nothing on a live
-- channel, or '!' and an error.
local function publish_many(keys, args)
  if not call then prepare() end
  if #keys ~= 0 or #args == 0 or #args % 5 ~= 0 then
    return invalid('for each message five arguments are needed')
  end
  look_at_the_clock()
  local channels, lines, at = {}, {}, 1
  local function rest()
    while at < #args do
      local first = at
      at = at + 5
      local line, fault = publish_one(channels, args[first], args[first + 1], args[first + 2],
        args[first + 3], args[first + 4])
      lines[(at - 1) / 5] = line or '!' .. fault.err:gsub('[\r\n]', ' ')
    end
  end
  repeat
    local is_done, fault = pcall(rest)
    if not is_done then
      fault = kind(fault) == 'table' and fault.err or tostring(fault)
      lines[(at - 1) / 5] = '!' .. fault:gsub('[\r\n]', ' ')
    end
  until is_done
  for _, channel in pairs(channels) do settle(channel) end
  return life .. '\n' .. table.concat(lines, '\n')
end

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

-- Replies { life, last id or '', evicted keys, time in ms, the frames of the entries }. Bounds are
-- exclusive; with `newest` = '1' the last entries within them, else the first; oldest first.
local function read(keys, args)
  if not call then prepare() end
  local key, after, before, limit, newest = keys[1], args[1], args[2], args[3], args[4]
  if #keys ~= 1 or #args ~= 4 then return invalid('one key and four arguments are needed') end
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
  local now = life_of(replication, epoch)
  local from = after ~= '' and '(' .. after or '-'
  local to = before ~= '' and '(' .. before or '+'
  local time = call('TIME')
  local reply = {
    now,
    call('GET', tagged .. 'top') or newest_id(history) or '',
    evicted_keys(replication),
    time[1] * 1000 + math.floor(time[2] / 1000),
  }
  local entries, first, last, step
  if newest == '1' then
    entries = call('XREVRANGE', history, to, from, 'COUNT', limit)
    first, last, step = #entries, 1, -1
  else
    entries = call('XRANGE', history, from, to, 'COUNT', limit)
    first, last, step = 1, #entries, 1
  end
  for at = first, last, step do
    local id, fields = entries[at][1], entries[at][2]
    -- Others are not of the function's making.
    if fields[1]:find('^[%d-]+ %d+\n') then
      reply[#reply + 1] = MARK .. now .. ' ' .. id .. ' ' .. fields[1] .. fields[2]
    end
  end
  return reply
end

---------------------------------------------------------------------------------------------------
-- Users' streams, over all nodes. Each node claims how many a user has there; granted is what fits
-- besides what was granted to the others, so that of nodes which find a user over the limit at once only
-- the later one is over it. What was granted stands as long as its node calls.

local LEASES, USERS = PREFIX .. '{node}:lease:', PREFIX .. '{node}:user:'
-- A node that was silent for so long is not counted; for longer than a lease, it is forgotten. (In
-- between it goes on as before, so that a moment's silence costs nothing.)
local SILENT_MS, LEASE_MS = 5000, '15000'
-- What was granted is kept for so long after it was written, which is done again when it is this old; nodes
-- claim all they have every quarter of an hour.
local USER_MS, OLD_SECONDS = '3600000', 600

-- Replies { 0 if the node was forgotten, then for each user: granted, granted elsewhere }.
local function claim(keys, args)
  if not call then prepare() end
  local node, most = args[1], tonumber(args[2])
  if #keys ~= 0 or not node or not find(node, '^%x+$') or not most or #args % 2 ~= 0 then
    return invalid('a node, a limit, and for each user two arguments are needed')
  end
  local time = call('TIME')
  local seconds = tonumber(time[1])
  local now_ms = seconds * 1000 + math.floor(time[2] / 1000)
  local reply = { call('GET', LEASES .. node) and 1 or 0 }
  call('SET', LEASES .. node, ('%.0f'):format(now_ms), 'PX', LEASE_MS)
  -- For how long each of the other nodes was silent; false of one that is forgotten.
  local silence = {}
  local function silent_for(other)
    if silence[other] == nil then
      local seen = tonumber(call('GET', LEASES .. other) or nil)
      silence[other] = seen and now_ms - seen
    end
    return silence[other]
  end
  for at = 3, #args, 2 do
    local key, wanted = USERS .. args[at], tonumber(args[at + 1])
    if not wanted then return invalid('a count is a number') end
    local value = call('GET', key) or ''
    local elsewhere, grants, mine = 0, {}, nil
    for other, granted in value:gmatch(' (%x+)=(%d+)') do
      if other == node then
        grants[#grants + 1], mine = '', #grants + 1
      else
        local silent = silent_for(other)
        if silent then
          grants[#grants + 1] = ' ' .. other .. '=' .. granted
          if silent < SILENT_MS then elsewhere = elsewhere + granted end
        end
      end
    end
    local granted = math.max(math.min(wanted, most - elsewhere), 0)
    if granted > 0 then
      grants[mine or #grants + 1] = (' %s=%.0f'):format(node, granted)
    end
    local text = table.concat(grants)
    local written, before = value:match('^(%d*)(.*)$')
    if text == '' then
      -- (Who may SET may perhaps not DEL.)
      if value ~= '' then call('SET', key, '', 'PX', '1') end
    elseif text ~= before or seconds - written >= OLD_SECONDS then
      call('SET', key, time[1] .. text, 'PX', USER_MS)
    end
    reply[#reply + 1], reply[#reply + 2] = granted, elsewhere
  end
  return reply
end

-- Replies { prefix, format, revision, digest of code and rules }.
local function about()
  return { PREFIX, FORMAT, REVISION, DIGEST }
end

redis.register_function('@library@_publish', publish)
redis.register_function('@library@_publish_many', publish_many)
redis.register_function('@library@_claim', claim)
redis.register_function{
  function_name = '@library@_read', callback = read, flags = { 'no-writes', 'allow-oom' },
}
redis.register_function{
  function_name = '@library@_about', callback = about, flags = { 'no-writes', 'allow-oom' },
}
