package config

import (
	"net/url"
	"regexp"
	"strings"
)

// s3Args are the options of an origin of the type OriginS3 alone.
func (o *Origin) s3Args() []arg {
	return []arg{
		{name: "bucket", into: text(&o.Bucket), required: true},
		{name: "key_prefix", into: text(&o.KeyPrefix)},
		{name: "region", into: text(&o.Region)},
		{name: "path_style", into: optionalBoolean(&o.PathStyle)},
		{name: "access_key", into: text(&o.AccessKey)},
		{name: "secret_key", into: text(&o.SecretKey)},
	}
}

// bucketPattern is what servers take for the name of a bucket; new ones of AWS
// have no capitals.
var bucketPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{1,61}[A-Za-z0-9]$`)

func (d *decoder) checkS3(o *Origin, at positions) {
	if o.Endpoint != "" {
		d.checkS3Endpoint(o, at)
	}
	if o.Bucket != "" && !bucketPattern.MatchString(o.Bucket) {
		d.errorAt(at.of("bucket"), "Bad value of bucket",
			"%s is not the name of a bucket: expected 3 to 63 letters, digits, dots, dashes or underscores. A path before the names of images belongs in key_prefix.", at.shown("bucket", o.Bucket))
	}
	if strings.Contains("/"+o.KeyPrefix+"/", "/../") {
		d.errorAt(at.of("key_prefix"), "Bad value of key_prefix", "%s contains \"..\", which means nothing in an object store.", at.shown("key_prefix", o.KeyPrefix))
	}
	switch {
	case o.AccessKey != "" && o.SecretKey == "":
		d.errorAt(at.of("access_key"), "Half of a pair of keys",
			`An access_key needs a secret_key, as secret_key = file("/etc/imgcache/s3-secret") or env("S3_SECRET"). For a public bucket give neither.`)
	case o.AccessKey == "" && o.SecretKey != "":
		d.errorAt(at.of("secret_key"), "Half of a pair of keys",
			`A secret_key needs the access_key that it belongs to. For a public bucket give neither.`)
	}
}

func (d *decoder) checkS3Endpoint(o *Origin, at positions) {
	u, err := url.Parse(o.Endpoint)
	here := at.of("endpoint")
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		d.errorAt(here, "Bad value of endpoint", `Expected a URL such as "https://s3.eu-central-1.amazonaws.com" or "http://minio.example:9000".`)
	case u.User != nil:
		d.errorAt(here, "Bad value of endpoint", "A password in a URL ends up in logs. Use access_key and secret_key, with values read by file() or env().")
	case strings.Trim(u.Path, "/") != "":
		d.errorAt(here, "Bad value of endpoint",
			"The endpoint is a host and perhaps a port, but %s is a path. Write the name of the bucket in bucket, and the rest of the path in key_prefix.", at.shown("endpoint", u.Path))
	case u.RawQuery != "" || u.Fragment != "":
		d.errorAt(here, "Bad value of endpoint", "The endpoint is a host and perhaps a port; it cannot contain ? or #.")
	}
}
