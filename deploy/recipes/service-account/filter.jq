# One report per day and caller.
(.day | strings | select(test("^[0-9]{4}-[0-9]{2}-[0-9]{2}$")) // error("day is not YYYY-MM-DD")) as $day
| ($REQUEST.caller.name | split(":") | last) as $caller
| {
    metadata: {name: "report-\($caller)-\($day)", labels: {caller: $caller}},
    spec: {
      template: {
        spec: {
          restartPolicy: "Never",
          automountServiceAccountToken: false,
          containers: [{name: "report", image: "registry.example.com/reports:12", args: ["--day", $day]}]
        }
      }
    }
  }
