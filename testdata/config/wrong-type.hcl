listener "tcp" "public" {
  address = 9292
  serve   = "images"

  limits {
    max_connections = 2.5
  }
}

cache "default" {
  dir          = "/var/lib/imgcache/images"
  max_size     = true
  limit        = "hrad"

  fill {
    keep_filling = "maybe"
  }
}

origin "http" "mirror" {
  endpoint = "https://mirror.example/images/"
  headers  = ["User-Agent"]
}
