# The first alert of a group that fires starts its runbook, once until a day after the runbook has ended. Other callers have tokens too, so only
# Alertmanager's count.
select($REQUEST.caller == {kind: "token", name: "alertmanager", groups: []})
| (.alerts | map(select(.status == "firing")) | first) as $alert
| select($alert != null)
| {
    metadata: {name: "runbook-\($alert.fingerprint + $alert.startsAt | @sha256 | .[:40])"},
    spec: {
      backoffLimit: 0,
      ttlSecondsAfterFinished: 86400,
      template: {
        spec: {
          restartPolicy: "Never",
          automountServiceAccountToken: false,
          containers: [{
            name: "run",
            image: "registry.example.com/runbooks:1",
            args: (["--"] + ($alert.labels | [.alertname, .instance] | map(values)))
          }]
        }
      }
    }
  }
