# A push to the main branch builds its commit. Neither a redelivery nor another push of the commit builds twice. Other paths may be open to
# others, so only what GitHub has signed counts.
select($REQUEST.caller.name == "/job/github")
| select($REQUEST.headers["x-github-event"] == "push" and .ref == "refs/heads/main" and (.deleted | not))
| (.repository.full_name | ascii_downcase | gsub("[^a-z0-9]+"; "-")) as $repository
| {
    metadata: {name: "build-\($repository | .[:40] | sub("-+$"; ""))-\(.after[:12])"},
    spec: {
      backoffLimit: 0,
      ttlSecondsAfterFinished: 259200,
      template: {
        spec: {
          restartPolicy: "Never",
          automountServiceAccountToken: false,
          containers: [{name: "build", image: "registry.example.com/builder:7", args: [.repository.clone_url, .after]}]
        }
      }
    }
  }
