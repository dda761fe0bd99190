listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir = "/tmp/images"
}
origin "directory" "golden" {
  path = "/srv/images"
}
schedule "both" {
  cron  = "30 2 * * *"
  every = "5m"
  run   = ["prune"]
}
schedule "neither" {
  run = ["prune"]
}
schedule "fields" {
  cron = "2:30"
  run  = ["prune"]
}
schedule "hour" {
  cron = "0 24 * * *"
  run  = ["prune"]
}
schedule "never" {
  cron = "0 0 31 2,4 *"
  run  = ["prune"]
}
schedule "zone" {
  cron = "TZ=Europe/Berlin 30 2 * * *"
  run  = ["prune"]
}
schedule "always" {
  every  = "10ms"
  jitter = "-5m"
  run    = ["prune"]
}
schedule "jitter" {
  every  = "5m"
  jitter = "5m"
  run    = ["purge", "clean"]
}
schedule "images" {
  every  = "5m"
  run    = ["clean"]
  images = ["debian-12"]
}
schedule "paths" {
  every  = "5m"
  run    = ["prefetch"]
  images = ["debian\\12"]
}
schedule "nothing" {
  every = "5m"
}
