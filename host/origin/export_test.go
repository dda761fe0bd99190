package origin

import (
	"net/http"
	"time"
)

// Describe makes an object of what an origin may say.
func Describe(h http.Header, size, seconds int64, file string) Object {
	obj := Object{Size: max(size, -1), ETag: entityTag(h)}
	if seconds != 0 {
		obj.LastModified = time.Unix(seconds%1e9, 0)
	}
	if file != "" {
		obj.File = "f" + hashText(file)
		obj.Size, obj.LastModified = max(size, 0), time.Unix(seconds%1e9, 0)
	}
	obj.Version = obj.Validators().version(Terms{})
	return obj
}

// RetryAfter is retryAfter.
var RetryAfter = retryAfter

// CachingOf is caching.
var CachingOf = caching

// The two directions of names.
var (
	ParseName  = parseName
	EscapeName = escapeName
)
