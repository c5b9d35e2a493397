{
  metadata: {generateName: "run-"},
  spec: {
    parallelism: ($REQUEST.query.parallelism // "1" | tonumber),
    template: {spec: {restartPolicy: "Never", containers: [{name: "run", image: "runner"}]}}
  }
}
