listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir    = "/tmp/images"
  policy = policy.recent
  shadow = [policy.recent, "sieve", policy.cadidate]
}
origin "directory" "golden" {
  path = "/srv/images"
}
policy "lru" "recent" {
}
policy "sieve" "candidate" {
}
