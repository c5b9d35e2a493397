{metadata: {name: .name}, spec: {}}
