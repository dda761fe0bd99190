node {
  advertise = "cache-1.example:9292"
}
listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir = "/tmp/images"
}
origin "directory" "golden" {
  path = "/srv/images"
}
