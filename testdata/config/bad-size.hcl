listener "tcp" "public" {
  address = "127.0.0.1:9292"
}

cache "default" {
  dir      = "/var/lib/imgcache/images"
  max_size = "100"
}

plugin "cost" {
  kind = "policy"
  wasm = "cost.wasm"

  limits {
    memory = "64M"
  }
}

origin "directory" "golden" {
  path = "/srv/images"
}
