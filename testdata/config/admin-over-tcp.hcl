listener "tcp" "public" {
  address = "localhost"
  serve   = ["images", "admin"]
}

cache "images" {
  dir = "/var/lib/imgcache/images"
}

origin "directory" "Golden" {
  path = "/srv/images"
}

max_size = "10GiB"
