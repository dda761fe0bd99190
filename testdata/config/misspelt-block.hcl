listener "tcp" "public" {
  address = "127.0.0.1:9292"
}

cahce "default" {
  dir = "/var/lib/imgcache/images"
}

origin "directory" "golden" {
  path = "/srv/images"
}
