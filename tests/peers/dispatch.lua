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

-- The name and the manifest for a body, or nil and what is wrong.
local function manifest_of(text)
  local body, wrong = cjson.decode(text)
  if type(body) ~= "table" then
    return nil, wrong or "the body is not an object"
  end
  local id = body.id
  if id == nil then
    id = ngx.sha1_bin(text):gsub(".", function(byte) return string.format("%02x", byte:byte()) end)
  end
  local name = (prefix .. tostring(id)):sub(1, 63)
  return name, cjson.encode({
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
  })
end

function M.create()
  ngx.req.read_body()
  local name, manifest = manifest_of(ngx.req.get_body_data())
  if not name then
    return fail(400, manifest)
  end
  local result = call(ngx.HTTP_POST, jobs, manifest)
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

-- For proxy.conf: the request is rewritten, passed to the API server, and its response replaced as it comes.

function M.rewrite()
  ngx.req.read_body()
  local name, manifest = manifest_of(ngx.req.get_body_data())
  if not name then
    fail(400, manifest)
    return ngx.exit(400)
  end
  ngx.ctx.name = name
  ngx.req.set_body_data(manifest)
end

local function replaced(code, object)
  ngx.status = code
  ngx.ctx.reply = cjson.encode(object)
  ngx.header.content_length = #ngx.ctx.reply
end

local function replaced_error(code, message)
  replaced(code, {error = {code = code, message = message}})
end

local function clear()
  for _, name in ipairs({"Audit-Id", "Warning", "X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid"}) do
    ngx.header[name] = nil
  end
  ngx.header.content_type = "application/json"
end

function M.created()
  if not ngx.ctx.name then return end
  clear()
  local name, code = ngx.ctx.name, ngx.status
  if code == 201 then
    ngx.header.location = "/job/" .. name
    replaced(201, {id = name})
  elseif code == 409 then
    replaced_error(409, "there is a Job " .. name)
  elseif code >= 400 and code < 500 then
    replaced_error(422, "the API server refuses the Job")
  else
    replaced_error(502, "the API server answers " .. code)
  end
end

function M.found(name)
  clear()
  local code = ngx.status
  if code == 200 then
    ngx.ctx.found, ngx.ctx.pieces = name, {}
    ngx.header.content_length = nil
  elseif code == 404 then
    replaced_error(404, "no such Job")
  else
    replaced_error(502, "the API server answers " .. code)
  end
end

function M.body()
  local last = ngx.arg[2]
  if ngx.ctx.reply then
    ngx.arg[1] = last and ngx.ctx.reply or nil
  elseif ngx.ctx.found then
    local pieces = ngx.ctx.pieces
    pieces[#pieces + 1] = ngx.arg[1]
    ngx.arg[1] = nil
    if last then
      -- the status ends a Job: it need not be decoded
      local status = table.concat(pieces):match('"status":(%b{})%s*}%s*$')
      ngx.arg[1] = '{"id":"' .. ngx.ctx.found .. '","status":' .. (status or "{}") .. "}"
    end
  end
end

return M
