# What a cluster autoscaler needs to know of a Job: how much it asks for, on which nodes it may run, and that it must not be moved.
{
  metadata: {generateName: "batch-"},
  spec: {
    backoffLimit: 2,
    # a node may take minutes to come: this clock runs from the start, also while the pod waits
    activeDeadlineSeconds: 3600,
    ttlSecondsAfterFinished: 600,
    template: {
      metadata: {annotations: {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
      spec: {
        restartPolicy: "Never",
        automountServiceAccountToken: false,
        # a pool of nodes for Jobs, which may shrink to none
        nodeSelector: {pool: "jobs"},
        tolerations: [{key: "pool", operator: "Equal", value: "jobs", effect: "NoSchedule"}],
        securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: "RuntimeDefault"}},
        containers: [{
          name: "job",
          image: "busybox:1.37",
          command: ["echo"],
          args: [.phrase | tostring],
          resources: {requests: {cpu: "1", memory: "1Gi"}, limits: {memory: "1Gi"}},
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}
        }]
      }
    }
  }
}
