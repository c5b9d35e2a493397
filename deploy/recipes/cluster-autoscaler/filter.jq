# What a cluster autoscaler needs to know about a Job: its requests, its node pool, and that it must not be evicted.
{
  metadata: {generateName: "batch-"},
  spec: {
    backoffLimit: 2,
    # includes the minutes that a new node may take
    activeDeadlineSeconds: 3600,
    ttlSecondsAfterFinished: 600,
    template: {
      metadata: {annotations: {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
      spec: {
        restartPolicy: "Never",
        automountServiceAccountToken: false,
        # a node pool for Jobs, which can scale down to zero
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
