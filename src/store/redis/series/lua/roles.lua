-- Roles of records, for the scripts that change series on behalf of a writer, and for the one that asks before.

-- The most series of others that a script names.
local MAX_OTHERS = 100

-- Returns the role that a record has; empty where it has none.
local function role_of(record)
  if string.byte(record, 7) < 128 then
    return ''
  end
  return string.sub(record, 25, 24 + string.byte(record, 24))
end

-- Collects the series that a writer may not change. `roles` are those whose series it may change: a byte of length and
-- the name of each, or '*' for all. `refuses(record, index)` returns whether the record is another's, and notes it;
-- `reply()` returns {others, how many, index, role, index, role..}, or nil where there are none.
local function others_for(roles)
  local others = { 'others', 0 }
  local changeable, at = { [''] = true }, 1
  while roles ~= '*' and at <= #roles do
    local bytes = string.byte(roles, at)
    changeable[string.sub(roles, at + 1, at + bytes)] = true
    at = at + 1 + bytes
  end
  local function refuses(record, index)
    if roles == '*' then
      return false
    end
    local role = role_of(record)
    if changeable[role] then
      return false
    end
    others[2] = others[2] + 1
    if others[2] <= MAX_OTHERS then
      others[#others + 1] = whole(index)
      others[#others + 1] = role
    end
    return true
  end
  local function reply()
    return others[2] > 0 and others or nil
  end
  return refuses, reply
end
