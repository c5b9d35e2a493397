# the caller's name becomes a label; its credentials are not there
$REQUEST.caller as $caller
| {
    metadata: {
      generateName: "report-",
      labels: {team: $caller.name},
      annotations: {"k8s-job-dispatcher/caller": "somebody else", kind: $caller.kind}
    },
    spec: {headers: ($REQUEST.headers | keys), groups: $caller.groups}
  }
