listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir            = "/tmp/images"
  max_image_size = "80GB/s"
  admit_after    = 0
  verify_reads   = "allways"

  prune {
    min_free = "5%"
  }
  fill {
    concurrency     = -1
    bandwidth       = "1Gbit"
    ranges_in_fill  = "verify"
    cold_per_client = 2.5
  }
  scrub {
    bandwith = "100MiB"
  }
}
origin "directory" "golden" {
  path = "/srv/images"
}
shutdown {
  fills = "finish"
}
