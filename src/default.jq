# The default filter: any JSON in, a Job out. Copy it to start your own:
#
#   k8s-job-dispatcher --from-file my.jq
#
# The input is the request's body. $ENV is the dispatcher's environment, $PATH the request's path, $REQUEST the rest of the request.
# The output is a Job's manifest; apiVersion and kind may be left out.

# An environment variable; empty counts as unset.
def setting($name; $default): $ENV[$name] | if . == null or . == "" then $default else . end;
def number($name; $default): setting($name; $default) | try (tonumber | floor) catch $default;

# Images like busybox run as root unless the pod says otherwise. OpenShift chooses the user itself: JOB_RUN_AS_USER="" leaves it out.
def user:
  ($ENV.JOB_RUN_AS_USER // "65532") as $user
  | if $user == "" then {} else ($user | tonumber | {runAsUser: ., runAsGroup: .}) end;

# A field of the body; null where there is none, or the body is no object.
def field($name): if isobject then .[$name] else null end;

def is_label: test("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
def clean: ascii_downcase | gsub("[^a-z0-9-]+"; "-");
def trim_dashes: sub("^-+"; "") | sub("-+$"; "");

# A name is a DNS label of at most 63 characters. Where the id had to be changed or cut for that, its hash keeps different ids different.
def name($prefix; $id):
  ($prefix | if is_label then . else clean | sub("^-+"; "") end) as $prefix
  | ($prefix + $id) as $name
  | if ($name | length) <= 63 and ($name | is_label) then $name
    else
      ($prefix + ($id | clean) | .[:54] | trim_dashes) as $start
      | ($id | @sha256 | .[:8]) as $hash
      | if $start == "" then $hash else "\($start)-\($hash)" end
    end;

. as $body
| field("id") as $id
| field("phrase") as $phrase
| (field("args") | if isarray then map(tostring) else [] end) as $args
| (if $args == [] and ($phrase | isstring) then [$phrase] else $args end) as $args
| setting("JOB_COMMAND"; "echo") as $command
| setting("JOB_IMAGE_PULL_SECRET"; null) as $pull_secret
| {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: {
      name: name(setting("JOB_NAME_PREFIX"; "demo-job-"); if $id == null then $body | @sha1 else $id | tostring end)
    },
    spec: {
      activeDeadlineSeconds: number("JOB_TTL"; 300),
      backoffLimit: number("JOB_RETRIES"; 2),
      ttlSecondsAfterFinished: number("JOB_KEEP_FOR"; 180),
      template: {
        spec: ({
          restartPolicy: "Never",
          automountServiceAccountToken: false,
          # with the container's own, what pod security "restricted" asks for
          securityContext: ({
            runAsNonRoot: true
          } + user + {
            seccompProfile: {type: "RuntimeDefault"}
          }),
          containers: [{
            name: "job",
            image: setting("JOB_IMAGE"; "busybox:latest"),
            command: (if $command | startswith("[") then $command | fromjson else [$command] end),
            args: $args,
            # every JOB_ENV_X becomes X
            env: [
              $ENV | keys_unsorted[] | select(startswith("JOB_ENV_") and . != "JOB_ENV_") | {name: .[8:], value: $ENV[.]}
            ],
            securityContext: {
              allowPrivilegeEscalation: false,
              capabilities: {drop: ["ALL"]}
            }
          }]
        } + if $pull_secret == null then {} else {imagePullSecrets: [{name: $pull_secret}]} end)
      }
    }
  }
