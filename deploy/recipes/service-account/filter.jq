# One report per day and caller. Its name may be long, or not that of a service account, so a hash of it is part of the Job's.
(.day | strings | select(test("^[0-9]{4}-[0-9]{2}-[0-9]{2}$")) // error("day is not YYYY-MM-DD")) as $day
| {
    metadata: {name: "report-\($day)-\($REQUEST.caller.name | @sha256 | .[:20])"},
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
