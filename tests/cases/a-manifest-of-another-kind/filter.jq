{kind: "Pod", spec: {}}
