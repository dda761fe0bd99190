listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir = "/tmp/images"
}
origin "s3" "half" {
  endpoint   = "http://minio.example:9000/images"
  bucket     = "images/cloud"
  access_key = "AKIAIOSFODNN7EXAMPLE"
  prefix     = "/half/"
}
origin "s3" "other-half" {
  endpoint   = "minio.example:9000"
  bucket     = "images"
  key_prefix = "a/../b"
  secret_key = env("IMGCACHE_TEST_UNSET", "hidden")
  prefix     = "/other/"
  path_style = "path"
}
origin "s3" "less" {
  endpoint = "https://me:hidden@s3.example"
  region   = 5
  headers  = { A = "b" }
  prefix   = "/less/"
}
