# POST /job/urgent and POST /job/bulk: the path selects the class.
{"/job/urgent": "jobs-urgent", "/job/bulk": "jobs-bulk"}[$PATH] as $class
| if $class == null then error("post to /job/urgent or /job/bulk") else . end
| {
    metadata: {generateName: "\($class)-"},
    spec: {
      backoffLimit: 2,
      ttlSecondsAfterFinished: 600,
      template: {spec: {
        priorityClassName: $class,
        restartPolicy: "Never",
        automountServiceAccountToken: false,
        securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: "RuntimeDefault"}},
        containers: [{
          name: "job",
          image: "busybox:1.37",
          command: ["echo"],
          args: [.phrase | tostring],
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}
        }]
      }}
    }
  }
