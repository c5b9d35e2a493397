# /job/reports/daily and /job/thumbnails are two kinds of Jobs; others are refused.
def job($image; $args):
  {spec: {template: {spec: {restartPolicy: "Never", containers: [{name: "main", image: $image, args: $args}]}}}};

$PATH | ltrimstr("/job/") | split("/") as $path
| if $path[0] == "reports" then job("reports:1"; ["--period", $path[1]])
  elif $path[0] == "thumbnails" then job("thumbnails:4"; [])
  else error("no such kind of Job: \($path | join("/"))")
  end
