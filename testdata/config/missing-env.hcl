listener "tcp" "public" {
  address = env("IMGCACHE_TEST_UNSET")
}

cache "default" {
  dir      = evn("HOME")
  max_size = env("IMGCACHE_TEST_UNSET", "10 GiB")
}

origin "http" "mirror" {
  endpoint = "https://mirror.example/"
  headers  = { Authorization = file("no-such-file") }
}
