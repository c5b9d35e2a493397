# The command `/deploy SERVICE` starts a deployment. What a user types is checked: it becomes an argument. Other
# paths may be open to others, so only what Slack has signed counts.
select($REQUEST.caller.name == "/job/slack" and .command == "/deploy")
| (.text | capture("^\\s*(?<service>[a-z][-a-z0-9]{0,30})\\s*$") // error("usage: /deploy SERVICE")) as {$service}
| {
    metadata: {name: "deploy-\($service)-\(.trigger_id | @sha256 | .[:12])", annotations: {"example.com/user": .user_id}},
    spec: {
      backoffLimit: 0,
      ttlSecondsAfterFinished: 86400,
      template: {
        spec: {
          restartPolicy: "Never",
          automountServiceAccountToken: false,
          containers: [{name: "deploy", image: "registry.example.com/deployer:3", args: [$service]}]
        }
      }
    }
  }
