-- wrk's side: a POST or a GET of a Job, and one line with requests, microseconds, errors, and the latency's median and 99th percentile.
function init(args)
  if args[1] == "POST" then
    wrk.method = "POST"
    wrk.body = '{"id":"a1","args":["Hello","world"]}'
    wrk.headers["Content-Type"] = "application/json"
  end
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format("RESULT %d %d %d %d %d", summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
