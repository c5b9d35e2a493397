def required($field): .[$field] // error({missing: $field});
{spec: {template: {spec: {restartPolicy: "Never", containers: [{name: "main", image: required("image")}]}}}}
