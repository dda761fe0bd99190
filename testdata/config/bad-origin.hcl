listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir = "/tmp/images"
}
origin "directory" "golden.images" {
  path           = "/srv/images"
  prefix         = "/golden/"
  on_origin_down = "stale"
  negative_ttl   = "10s"
}
origin "http" "mirror" {
  endpoint     = "https://mirror.example/"
  prefix       = "/mirror/"
  negative_ttl = 10
  concurrency  = "many"
  bandwidth    = "10M"
  min_rate     = "-1KiB"
  validators   = ["etag", "mtime"]
  revalidate   = "later"
  on_denied    = "serve"
  redirect_to  = ["10.1.0.0/16", "10.1.0.300"]
  expect {
    content_types = ["application/octet-stream; x=y", "image"]
    min_size      = -1
  }
}
