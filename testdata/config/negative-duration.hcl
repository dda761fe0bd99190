listener "tcp" "public" {
  address = "127.0.0.1:9292"

  limits {
    idle_timeout   = 30
    header_timeout = "0s"
  }
}

cache "default" {
  dir        = "/var/lib/imgcache/images"
  stall_time = "-5m"

  prune {
    min_age  = "7d"
    interval = "60"
  }
}

origin "directory" "golden" {
  path = "/srv/images"
}
