-- What an afternoon's script does: a body becomes a Job's manifest, the Job is created, errors are reported.
local cjson = require "cjson.safe"

local M = {}
local jobs, prefix, image

function M.start(token_file, namespace)
  local file = assert(io.open(token_file))
  M.authorization = "Bearer " .. file:read("*a"):gsub("%s+$", "")
  file:close()
  jobs = "/api/apis/batch/v1/namespaces/" .. namespace .. "/jobs"
  prefix = os.getenv("JOB_NAME_PREFIX") or "demo-job-"
  image = os.getenv("JOB_IMAGE") or "busybox:latest"
end

local function answer(code, object)
  ngx.status = code
  ngx.header.content_type = "application/json"
  local text = cjson.encode(object)
  ngx.header.content_length = #text
  ngx.print(text)
end

local function fail(code, message)
  answer(code, {error = {code = code, message = message}})
end

local function call(method, path, body)
  return ngx.location.capture(path, {method = method, body = body})
end

function M.create()
  ngx.req.read_body()
  local text = ngx.req.get_body_data()
  local body, wrong = cjson.decode(text)
  if type(body) ~= "table" then
    return fail(400, wrong or "the body is not an object")
  end
  local id = body.id
  if id == nil then
    id = ngx.sha1_bin(text):gsub(".", function(byte) return string.format("%02x", byte:byte()) end)
  end
  local name = (prefix .. tostring(id)):sub(1, 63)
  local manifest = {
    apiVersion = "batch/v1",
    kind = "Job",
    metadata = {name = name, labels = {["app.kubernetes.io/managed-by"] = "script"}},
    spec = {
      activeDeadlineSeconds = 300,
      backoffLimit = 2,
      parallelism = 1,
      ttlSecondsAfterFinished = 180,
      template = {
        spec = {
          restartPolicy = "Never",
          containers = {{name = "demo-job", image = image, command = {"echo"}, args = body.args}},
        },
      },
    },
  }
  local result = call(ngx.HTTP_POST, jobs, cjson.encode(manifest))
  if result.status == 201 then
    local job = cjson.decode(result.body)
    ngx.header.location = "/job/" .. job.metadata.name
    return answer(201, {id = job.metadata.name})
  elseif result.status == 409 then
    return fail(409, "there is a Job " .. name)
  elseif result.status >= 400 and result.status < 500 then
    return fail(422, "the API server refuses the Job")
  end
  fail(502, "the API server answers " .. result.status)
end

function M.get(name)
  local result = call(ngx.HTTP_GET, jobs .. "/" .. name)
  if result.status == 200 then
    local job = cjson.decode(result.body)
    return answer(200, {id = name, status = job.status or {}})
  elseif result.status == 404 then
    return fail(404, "no such Job")
  end
  fail(502, "the API server answers " .. result.status)
end

return M
