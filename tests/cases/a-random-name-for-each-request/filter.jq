{
  metadata: {generateName: "import-"},
  spec: {template: {spec: {restartPolicy: "Never", containers: [{name: "import", image: "importer", args: [.url]}]}}}
}
