package origin_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/origin"
)

// header makes a header of NAME: VALUE, separated by |.
func header(fields string) http.Header {
	h := http.Header{}
	for _, line := range strings.Split(fields, "|") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			h.Add(name, value)
		}
	}
	return h
}

// answers returns an origin that answers everything with these fields and data.
func answers(t *testing.T, fields string, data []byte, terms origin.Terms) *origin.HTTP {
	t.Helper()
	url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil // nothing is guessed
		for name, values := range header(fields) {
			w.Header()[name] = values
		}
		w.Write(data)
	})
	return at(t, url, func(c *origin.HTTPConfig) { c.Terms = terms })
}

// TestContentCoding checks that the label of a compressed file is none of the
// transfer, and that any other coding is refused, by HEAD as by GET.
func TestContentCoding(t *testing.T) {
	for _, c := range []struct {
		name, coding string
		ok           bool
	}{
		{"a.img", "", true},
		{"a.img", "identity", true},
		{"a.img", "Identity", true},
		{"a.img.gz", "gzip", true},
		{"a.img.gz", "x-gzip", true},
		{"A.IMG.GZ", "GZip", true},
		{"a.tgz", "identity, gzip", true},
		{"a.raw.xz", "xz", true},
		{"a.raw.xz", "x-xz", true},
		{"a.raw.bz2", "bzip2", true},
		{"a.raw.zst", "zstd", true},
		{"a.raw.br", "br", true},
		{"a.tar.Z", "x-compress", true},
		{"a.img", "gzip", false},
		{"a.qcow2", "br", false},
		{"a.img.gz", "br", false},
		{"a.img.gz", "gzip, gzip", false},
		{"a.img.gz", "gzip, br", false},
		{"gz", "gzip", false},
		{"a.raw.xz", "gzip", false},
		{"a.img", "aws-chunked", false},
		{"a.img", "x-made-up", false},
	} {
		o := answers(t, "Content-Encoding: "+c.coding+"|Content-Type: application/x-gzip", []byte("bytes"), origin.Terms{})
		head, headErr := o.Stat(t.Context(), c.name)
		data, get, getErr := fetch(o, origin.Request{Name: c.name, Length: -1})
		if c.ok {
			if headErr != nil || getErr != nil || string(data) != "bytes" || head.Size != 5 || get.ContentType != "application/x-gzip" {
				t.Errorf("%s with %q: %v, %v, %q of type %s", c.name, c.coding, headErr, getErr, data, get.ContentType)
			}
			continue
		}
		for _, err := range []error{headErr, getErr} {
			var f *origin.Failure
			if !errors.As(err, &f) || !errors.Is(err, origin.ErrUnavailable) || f.Temporary || !strings.Contains(err.Error(), `"`+c.coding+`"`) {
				t.Errorf("%s with %q: %v, want a lasting failure that names the coding", c.name, c.coding, err)
			}
		}
	}
}

func TestExpect(t *testing.T) {
	page := origin.Expect{NotHTML: true}
	types := origin.Expect{ContentTypes: []string{"application/octet-stream", "Image/*"}}
	for _, c := range []struct {
		name, contentType string
		expect            origin.Expect
		want              origin.Refusal
	}{
		{"a.qcow2", "text/html", page, origin.RefusedHTML},
		{"a.qcow2", "text/html; charset=utf-8", page, origin.RefusedHTML},
		{"a.qcow2", "TEXT/HTML;charset=utf-8;charset=x", page, origin.RefusedHTML},
		{"a.qcow2", "application/xhtml+xml", page, origin.RefusedHTML},
		{"html", "text/html", page, origin.RefusedHTML},
		{"a.html/b", "text/html", page, origin.RefusedHTML},
		{"a.html", "text/html", page, ""},
		{"A.HTM", "text/html", page, ""},
		{"a.xhtml", "application/xhtml+xml", page, ""},
		{"a.qcow2", "text/plain", page, ""},
		{"a.qcow2", "", page, ""},
		{"a.qcow2", "text/html", origin.Expect{}, ""},
		{"a.qcow2", "application/octet-stream", types, ""},
		{"a.qcow2", "Application/Octet-Stream; x=y", types, ""},
		{"a.qcow2", "image/png", types, ""},
		{"a.qcow2", "imagery/png", types, origin.RefusedType},
		{"a.qcow2", "application/json", types, origin.RefusedType},
		{"a.qcow2", "", types, origin.RefusedType},
		{"a.qcow2", "nonsense", types, origin.RefusedType},
		{"a.qcow2", "", origin.Expect{MinSize: 5}, ""},
		{"a.qcow2", "", origin.Expect{MinSize: 6}, origin.RefusedSize},
	} {
		fields := "Content-Type: " + c.contentType
		if c.contentType == "" {
			fields = ""
		}
		o := answers(t, fields, []byte("bytes"), origin.Terms{Expect: c.expect})
		head, err := o.Stat(t.Context(), c.name)
		if err != nil || head.Refused != c.want {
			t.Errorf("%s of type %q: HEAD is refused as %q, %v, want %q", c.name, c.contentType, head.Refused, err, c.want)
		}
		data, get, err := fetch(o, origin.Request{Name: c.name, Length: -1})
		if err != nil || get.Refused != c.want || string(data) != "bytes" {
			t.Errorf("%s of type %q: GET is refused as %q, %v, want %q, and the bytes", c.name, c.contentType, get.Refused, err, c.want)
		}
		if get.Refused != "" && !get.Refused.NotAnImage() {
			t.Errorf("%s of type %q is called an image", c.name, c.contentType)
		}
	}
}

func TestNoStoreIsRefused(t *testing.T) {
	for fields, want := range map[string]origin.Refusal{
		"Cache-Control: no-store":            origin.RefusedNoStore,
		"Cache-Control: private, max-age=60": origin.RefusedNoStore,
		"Cache-Control: no-cache":            "",
		"Cache-Control: max-age=0":           "",
	} {
		obj, err := answers(t, fields, []byte("bytes"), origin.Terms{}).Stat(t.Context(), "a")
		if err != nil || obj.Refused != want || obj.Refused.NotAnImage() {
			t.Errorf("%s: refused as %q, %v, want %q", fields, obj.Refused, err, want)
		}
		obj, err = answers(t, fields, []byte("bytes"), origin.Terms{IgnoreCacheControl: true}).Stat(t.Context(), "a")
		if err != nil || obj.Refused != "" {
			t.Errorf("%s, which is to be ignored: refused as %q, %v", fields, obj.Refused, err)
		}
	}
}
