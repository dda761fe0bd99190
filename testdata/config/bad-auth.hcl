listener "tcp" "nothing" {
  address   = "127.0.0.1:9292"
  serve     = ["metrics"]
  auth_file = "clients"
}
listener "tcp" "one-for-two" {
  address    = "127.0.0.1:9293"
  serve      = ["images", "admin"]
  token_file = "clients"
  auth_file  = "clients"
}
cache "default" {
  dir = "/tmp/images"
}
origin "directory" "golden" {
  path  = "/srv/images"
  query = "identity"
}
