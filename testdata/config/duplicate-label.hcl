listener "tcp" "public" {
  address = "127.0.0.1:9292"
}

listener "tcp" "public" {
  address = "127.0.0.1:9293"
}

listener "tcp" "second" {
  address = "127.0.0.1:9292"
}

cache "default" {
  dir = "/var/lib/imgcache/images"

  prune {}
  prune {}
}

log {}
log {}

origin "directory" "golden" {
  path = "/srv/images"
}

origin "http" "golden" {
  endpoint = "https://mirror.example/"
}
