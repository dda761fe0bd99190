listener "tcp" "public" {
  address = "127.0.0.1:9292"
}

cache "default" {
  dir = "/var/lib/imgcache/images"
}

origin "glance" "central" {
  endpoint = "https://glance.example:9292"
}

origin "htp" "mirror" {
  endpoint = "https://mirror.example/"
}
