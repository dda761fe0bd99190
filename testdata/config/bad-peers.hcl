node {
  advertise = "http://user:secret@edge-1.example:9292"
}
listener "tcp" "public" {
  address = "127.0.0.1:9292"
  serve   = ["images", "peers"]
}
listener "tcp" "ops" {
  address    = "127.0.0.1:9293"
  serve      = ["admin", "peers"]
  token_file = "/etc/imgcache/tokens"
}
cache "default" {
  dir = "/tmp/images"
}
origin "directory" "golden" {
  path = "/srv/images"
}
origin "peer" "nodes" {
  token_file     = "/etc/imgcache/tokens"
  lookup_timeout = "0s"
}
origin "peer" "others" {}
