-- Claims job locks, each with a key that nobody has claimed before. The argument starts the keys.
local threads = 0
local prefix, count

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init(arguments)
  prefix = "/v1/locks/job/" .. arguments[1] .. "-" .. number .. "-"
  count = 0
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  count = count + 1
  return wrk.format("POST", prefix .. count, nil, '{"ttl":"10m"}')
end
