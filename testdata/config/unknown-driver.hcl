listener "tcp" "public" {
  address = "127.0.0.1:9292"
}

cache "default" {
  dir    = "/var/lib/imgcache/images"
  driver = driver.locl
  policy = "lru"
}

driver "sqlite" "local" {
  config {
    busy_timeout = "5s"
  }
}

origin "directory" "golden" {
  path = "/srv/images"
}
