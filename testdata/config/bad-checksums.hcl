listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir = "/tmp/images"
}
origin "directory" "golden" {
  path   = "/srv/images"
  prefix = "/golden/"
  checksums {
    file     = "../SHA256SUMS"
    required = "perhaps"
    signature {
      keyring = "no-such-keyring.gpg"
    }
  }
}
origin "http" "mirror" {
  endpoint = "https://mirror.example/"
  prefix   = "/mirror/"
  checksums {
    file = "SHA256SUMS"
    signature {
      file    = "{name}.gpg"
      keyring = "empty.hcl"
    }
  }
}
origin "s3" "objects" {
  endpoint = "https://s3.example"
  bucket   = "images"
  prefix   = "/objects/"
  checksums {
    required = true
    signature {
      file = "SHA256SUMS.gpg"
    }
  }
}
