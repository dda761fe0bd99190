listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir = "/tmp/images"
}
origin "directory" "golden" {
  path = "/srv/images"
}
plugin "records" {
  kind    = "driver"
  command = "/opt/records"
  grant   = ["clock"]
}
plugin "cost" {
  kind  = "policy"
  wasm  = "/opt/cost.wasm"
  grant = ["network"]

  limits {
    state = "1KiB"
  }
}
