package guest

import (
	"strconv"

	"github.com/imgcache/imgcache-host/sdk"
)

// manifestJSON is the manifest as JSON. It is written by hand because
// encoding/json would add more than a megabyte to every module.
func manifestJSON(m sdk.Manifest) []byte {
	b := quote([]byte(`{"name":`), m.Name)
	b = field(b, "version", m.Version)
	b = field(b, "kind", string(m.Kind))
	b = append(b, `,"capabilities":[`...)
	for i, c := range m.Capabilities {
		b = quote(comma(b, i), string(c))
	}
	b = append(b, `],"options":[`...)
	for i, o := range m.Options {
		b = append(comma(b, i), `{"name":`...)
		b = quote(b, o.Name)
		b = field(b, "type", string(o.Type))
		b = field(b, "default", o.Default)
		b = field(b, "description", o.Description)
		b = append(append(b, `,"required":`...), strconv.FormatBool(o.Required)...)
		b = append(append(b, `,"sensitive":`...), strconv.FormatBool(o.Sensitive)...)
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		return append(b, ',')
	}
	return b
}

func field(b []byte, name, value string) []byte {
	b = append(append(append(b, ',', '"'), name...), '"', ':')
	return quote(b, value)
}

// quote appends s as a JSON string.
func quote(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
