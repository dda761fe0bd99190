listener "tcp" "public" {
  address = "127.0.0.1:9292"
}

cache "default" {
  dir = "/var/lib/imgcache/images"

  prune {
    high_watermark = 0.8
    low_watermark  = 0.9
  }
}

origin "directory" "golden" {
  path = "/srv/images"
}
