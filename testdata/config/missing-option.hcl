listener "tcp" "public" {
}

listener "unix" "admin" {
  path = "/run/imgcache/a-very-long-directory-name/that-goes-on-and-on/until-the-kernel-refuses-it/because-of-its-length/admin.sock"
  mode = "rw-rw----"
}

cache "default" {
  max_size = "10GiB"
}

origin "http" "mirror" {
}

plugin "cost" {
  command = "/bin/cost"
  wasm    = "cost.wasm"
  sha256  = "abc"
}
