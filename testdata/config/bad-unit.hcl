listener "tcp" "public" {
  address = "127.0.0.1:9292"
}

cache "default" {
  dir      = "/var/lib/imgcache/images"
  max_size = "10GiBs"
}

plugin "first" {
  kind = "policy"

  limits {
    memory = "-64MiB"
  }
}

plugin "second" {
  kind = "policy"

  limits {
    memory = "99999999TiB"
  }
}

plugin "third" {
  kind = "policy"

  limits {
    memory = "1KiB"
  }
}

origin "directory" "golden" {
  path = "/srv/images"
}
