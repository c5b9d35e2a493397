# Modules stand beside the filter, or in folders below.
def team_job($task):
  {
    metadata: {generateName: "\($task)-", labels: {team: "platform"}},
    spec: {template: {spec: {restartPolicy: "Never", containers: [{name: "main", image: "team/\($task)"}]}}}
  };
