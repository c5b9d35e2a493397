# A push to the main branch builds its commit. Other paths may be open to others, so only what GitLab has sent counts.
select($REQUEST.caller.name == "/job/gitlab")
| select($REQUEST.headers["x-gitlab-event"] == "Push Hook" and .ref == "refs/heads/main" and .checkout_sha != null)
| {
    metadata: {name: "build-\(.project_id)-\(.checkout_sha[:12])"},
    spec: {
      backoffLimit: 0,
      ttlSecondsAfterFinished: 259200,
      template: {
        spec: {
          restartPolicy: "Never",
          automountServiceAccountToken: false,
          containers: [{name: "build", image: "registry.example.com/builder:7", args: [.project.git_http_url, .checkout_sha]}]
        }
      }
    }
  }
