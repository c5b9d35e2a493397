.jobs[] | {spec: .}
