-- Sets checkpoints of 1,000 repositories per thread in turn.
local threads = 0
local prefix, count

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init()
  prefix = "/v1/checkpoints/bench-" .. number .. "/repo-"
  count = 0
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  count = count + 1
  return wrk.format("PUT", prefix .. count % 1000, nil, '{"checkpoint":"2026-01-02T03:04:05Z"}')
end
