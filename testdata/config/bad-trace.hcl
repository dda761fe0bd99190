listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir = "/tmp/images"

  trace {
    path     = "/tmp/images/requests"
    max_size = "1KiB"
    files    = 1
  }
}
origin "directory" "golden" {
  path = "/srv/images"
}
