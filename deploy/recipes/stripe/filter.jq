# A paid invoice gets a receipt. Stripe repeats an event until it is answered with 2xx; its id names the Job. Other paths
# may be open to others, so only what Stripe has signed counts.
select($REQUEST.caller.name == "/job/stripe" and .type == "invoice.paid")
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
