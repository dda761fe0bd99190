listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir = "/tmp/images"
}
origin "directory" "golden" {
  path = "/srv/images"
}
pin "path" {
  images = ["debian-12", "../ubuntu"]
}
pin "segment" {
  images = ["debian/12.qcow2", "a//b"]
}
pin "twice" {
  images = ["debian-12", "debian-12"]
}
pin "none" {
  images = []
}
pin "text" {
  images = "debian-12"
}
pin "date" {
  images = ["debian-12"]
  until  = "2027-01-31"
}
pin "missing" {
  until = "31.1.2027"
}
