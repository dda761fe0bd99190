listener "tcp" "public" {
  address = "127.0.0.1:9292"
}

cache "default" {
  dir = "/var/lib/imgcache/images"
}

origin "directory" "golden" {
  path = "/srv/images"
}

origin "http" "mirror" {
  endpoint = "https://user:secret@mirror.example/"
}

origin "directory" "third" {
  path   = "/srv/third"
  prefix = "/v1/third/"
}

origin "directory" "fourth" {
  path   = "/var/lib/imgcache/images/golden"
  prefix = "golden"
}
