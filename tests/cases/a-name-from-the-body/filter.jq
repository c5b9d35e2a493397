# One Job per invoice: the same invoice again finds the same Job.
{
  metadata: {name: "invoice-\(.number)"},
  spec: {
    template: {
      spec: {
        restartPolicy: "Never",
        containers: [{name: "render", image: "registry.example.com/invoices:3", args: [.customer, (.number | tostring)]}]
      }
    }
  }
}
