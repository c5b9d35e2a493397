# Only pushes to main; everything else is no error, but there is nothing to do.
if $REQUEST.headers["x-github-event"] == "push" and .ref == "refs/heads/main" then
  {
    metadata: {name: "build-\(.after[:12])"},
    spec: {template: {spec: {restartPolicy: "Never", containers: [{name: "build", image: "builder", args: [.repository.full_name, .after]}]}}}
  }
else empty end
