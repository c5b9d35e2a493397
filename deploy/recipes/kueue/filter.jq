# Each Job goes into the queue "jobs" and requests one CPU, or the body's `.cpu`.
{
  metadata: {
    generateName: "queued-",
    labels: {"kueue.x-k8s.io/queue-name": "jobs"}
  },
  spec: {
    backoffLimit: 2,
    ttlSecondsAfterFinished: 600,
    template: {spec: {
      restartPolicy: "Never",
      automountServiceAccountToken: false,
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: "RuntimeDefault"}},
      containers: [{
        name: "job",
        image: "busybox:1.37",
        command: ["echo"],
        args: [.phrase | tostring],
        resources: {requests: {cpu: (.cpu // "1" | tostring)}},
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}
      }]
    }}
  }
}
