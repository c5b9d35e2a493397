# A paid invoice gets a receipt. Stripe repeats an event until it is answered with 2xx; its id names the Job.
select(.type == "invoice.paid")
| {
    metadata: {name: "receipt-\(.id | @sha256 | .[:32])"},
    spec: {
      ttlSecondsAfterFinished: 259200,
      template: {
        spec: {
          restartPolicy: "Never",
          automountServiceAccountToken: false,
          containers: [{name: "receipt", image: "registry.example.com/receipts:2", args: [.data.object.id]}]
        }
      }
    }
  }
