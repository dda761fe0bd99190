listener "tcp" "public" {
  address = "127.0.0.1:9292"
  max_connections = 10
}

cache "default" {
  dir     = "/var/lib/imgcache/images"
  maxsize = "10GiB"

  prune {
    watermark = 0.9
  }
}

origin "directory" "golden" {
  path = "/srv/images"
}
