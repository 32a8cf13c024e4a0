-- Pushes one of the first 1,000 series of data.py at a time, each time with another value.
local codes = { "200", "204", "301", "404", "500" }
local jobs = { "api", "web", "etl", "cron" }
local count

function init()
  count = 0
  wrk.headers["Content-Type"] = "text/plain; version=0.0.4"
end

function request()
  count = count + 1
  local member = count % 1000
  local line = string.format(
    '# TYPE bench_000_total counter\n'
      .. 'bench_000_total{code="%s",instance="10.0.%d.%d:9100",job="%s",path="/v1/%05d"} %d\n',
    codes[member % 5 + 1], math.floor(member / 250), member % 250, jobs[member % 4 + 1], member, count
  )
  return wrk.format("POST", nil, nil, line)
end
