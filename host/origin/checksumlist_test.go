package origin

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	hexMD5    = strings.Repeat("0a", 16)
	hexSHA1   = strings.Repeat("1a", 20)
	hexSHA256 = strings.Repeat("2a", 32)
	hexOther  = strings.Repeat("2b", 32)
	hexSHA512 = strings.Repeat("5a", 64)

	sha = "sha256:" + hexSHA256
)

// listedVersions is what a list says, as versions by name, or "disputed".
func listedVersions(l checksumList) map[string]string {
	got := map[string]string{}
	for name, sums := range l.sums {
		var versions []string
		for _, d := range sums {
			versions = append(versions, d.version())
		}
		got[name] = strings.Join(versions, " ")
		if l.disputed[name] {
			got[name] = "disputed"
		}
	}
	return got
}

// listForms are texts of lists and what they say, by the version of each name;
// nil: nothing.
var listForms = map[string]struct {
	text string
	want map[string]string
}{
	"text":              {hexSHA256 + "  x.img\n", map[string]string{"x.img": sha}},
	"binary":            {hexSHA256 + " *x.img\n", map[string]string{"x.img": sha}},
	"without a newline": {hexSHA256 + "  x.img", map[string]string{"x.img": sha}},
	"Windows":           {"\ufeff" + hexSHA256 + " *x.img\r\n" + hexMD5 + " *y.img\r\n", map[string]string{"x.img": sha, "y.img": "md5:" + hexMD5}},
	"one blank":         {hexSHA256 + " x.img\n", map[string]string{"x.img": sha}},
	"tab":               {hexSHA256 + "\tx.img\n", map[string]string{"x.img": sha}},
	"upper case":        {strings.ToUpper(hexSHA256) + "  x.img\n", map[string]string{"x.img": sha}},
	"blanks in a name":  {hexSHA256 + "   x  y.img \n", map[string]string{" x  y.img ": sha}},
	"asterisk":          {hexSHA256 + "  *x.img\n", map[string]string{"*x.img": sha}},
	"by find":           {hexSHA256 + "  ./sub/x.img\n", map[string]string{"sub/x.img": sha}},
	"escapes":           {`\` + hexSHA256 + `  a\\b\nc\rd` + "\n", map[string]string{"a\\b\nc\rd": sha}},
	"no escapes":        {hexSHA256 + `  a\nb` + "\n", map[string]string{`a\nb`: sha}},
	"bad escape":        {`\` + hexSHA256 + `  a\tb` + "\n", nil},
	"half an escape":    {`\` + hexSHA256 + `  a\` + "\n", nil},
	"MD5":               {hexMD5 + "  x.img\n", map[string]string{"x.img": "md5:" + hexMD5}},
	"SHA-512":           {hexSHA512 + "  x.img\n", map[string]string{"x.img": "sha512:" + hexSHA512}},
	"SHA-1":             {hexSHA1 + "  x.img\n", nil},
	"BSD":               {"SHA256 (x.img) = " + hexSHA256 + "\nMD5 (y.img) = " + hexMD5, map[string]string{"x.img": sha, "y.img": "md5:" + hexMD5}},
	"BSD, parentheses":  {"SHA512 (x (1) = .img) = " + hexSHA512, map[string]string{"x (1) = .img": "sha512:" + hexSHA512}},
	"BSD, escapes":      {`\SHA256 (a\nb) = ` + hexSHA256, map[string]string{"a\nb": sha}},
	"BSD, SHA-1":        {"SHA1 (x.img) = " + hexSHA1, nil},
	"BSD, BLAKE2":       {"BLAKE2b (x.img) = " + hexSHA512, nil},
	"BSD, wrong length": {"SHA256 (x.img) = " + hexMD5, nil},
	"BSD, no name":      {"SHA256 () = " + hexSHA256, nil},
	"OpenSSL":           {"SHA2-256(x.img)= " + hexSHA256 + "\nSHA256(y.img)= " + hexSHA256, map[string]string{"x.img": sha, "y.img": sha}},
	"alone":             {hexSHA256 + "\n", map[string]string{"": sha}},
	"alone, blanks":     {hexSHA256 + "  \n", map[string]string{"": sha}},
	"of a pipe":         {hexSHA256 + "  -\n", map[string]string{"-": sha}},
	"several sums": {
		hexMD5 + "  x.img\n" + hexSHA256 + "  x.img\n" + hexSHA512 + "  x.img\n",
		map[string]string{"x.img": "sha512:" + hexSHA512 + " " + sha + " md5:" + hexMD5},
	},
	"twice the same": {hexSHA256 + "  x.img\nSHA256 (x.img) = " + hexSHA256, map[string]string{"x.img": sha}},
	"disputed":       {hexSHA256 + "  x.img\n" + hexOther + "  ./x.img\n" + hexSHA256 + "  x.img\n", map[string]string{"x.img": "disputed"}},
	"comments": {
		"# x.img: 5 bytes\n\n-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n" + hexSHA256 + "  x.img\n-----BEGIN PGP SIGNATURE-----\n",
		map[string]string{"x.img": sha},
	},
	"a page":        {"<html><body>Log in</body></html>\n", nil},
	"nothing":       {"", nil},
	"odd digits":    {hexSHA256[1:] + "  x.img\n", nil},
	"digits and g":  {"g" + hexSHA256[1:] + "  x.img\n", nil},
	"sum at an end": {"x.img " + hexSHA256 + "\n", nil},
}

func TestParseChecksums(t *testing.T) {
	for name, test := range listForms {
		t.Run(name, func(t *testing.T) {
			l := parseChecksums([]byte(test.text))
			if test.want == nil {
				test.want = map[string]string{}
			}
			if diff := cmp.Diff(test.want, listedVersions(l)); diff != "" {
				t.Error(diff)
			}
			if l.empty() != (len(test.want) == 0) {
				t.Errorf("empty is %v", l.empty())
			}
			if l.disputed["x.img"] && l.of("x.img") != nil {
				t.Error("a disputed sum counts")
			}
		})
	}
}

// The list of one image speaks of this one, wherever it lay when it was made.
func TestListOfOneImage(t *testing.T) {
	for text, want := range map[string]string{
		hexSHA256:                                          hexSHA256,
		hexSHA256 + "  x.img":                              hexSHA256,
		hexSHA256 + "  /tmp/build/x.img":                   hexSHA256,
		hexSHA256 + "  -":                                  hexSHA256,
		"SHA256 (out/x.img) = " + hexOther:                 hexOther,
		hexSHA256 + "\n" + hexOther + "  x.img":            hexOther, // its own name goes before none
		hexSHA256 + "  y.img":                              "",
		hexSHA256 + "  x.img.sha256":                       "",
		hexSHA256 + "\n" + hexOther:                        "",
		hexSHA256 + "  a/x.img\n" + hexOther + "  b/x.img": "",
	} {
		got := ""
		if sums := parseChecksums([]byte(text)).ofOne("x.img"); len(sums) > 0 {
			got = fmt.Sprintf("%x", sums[0].Sum)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// What coreutils write is read, whatever the names are.
func TestListsOfCoreutils(t *testing.T) {
	dir := t.TempDir()
	names := []string{"x.img", "a b.img", " *x", "*x", "back\\slash", "new\nline", "x (1).img", "größe", "-", "\\", "a = b", "cr\r"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for tool, algorithm := range map[string]string{"sha512sum": algSHA512, "sha256sum": algSHA256, "md5sum": algMD5} {
		for _, option := range []string{"--text", "--binary", "--tag"} {
			args := []string{option, "--"}
			for _, name := range names {
				args = append(args, "./"+name) // a dash alone is the standard input
			}
			cmd := exec.Command(tool, args...)
			cmd.Dir = dir
			text, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			l := parseChecksums(text)
			if len(l.sums) != len(names) {
				t.Errorf("%s %s: %d names, want %d", tool, option, len(l.sums), len(names))
			}
			for _, name := range names {
				sums := l.of(name)
				if len(sums) != 1 || sums[0].Algorithm != algorithm {
					t.Errorf("%s %s: %q has %v", tool, option, name, sums)
				} else if sum := sha256.Sum256([]byte("of " + name)); algorithm == algSHA256 && !bytes.Equal(sums[0].Sum, sum[:]) {
					t.Errorf("%s %s: %q has the sum of something else", tool, option, name)
				}
			}
		}
	}
}

// FuzzParseChecksums holds that sums have the length of their algorithm, and
// that a name which is written in any form is read again.
func FuzzParseChecksums(f *testing.F) {
	f.Add([]byte(hexSHA256+"  x.img\n"), "x.img")
	f.Add([]byte(`\`+hexMD5+` *a\nb`), "a\nb")
	f.Add([]byte("SHA512 (x) = "+hexSHA512), "x (1)")
	f.Add([]byte("\ufeff"+hexSHA256), " *\\\r")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		l := parseChecksums(text)
		for listed, sums := range l.sums {
			for i, d := range sums {
				if len(d.Sum) != digestBytes[d.Algorithm] || i > 0 && len(d.Sum) >= len(sums[i-1].Sum) {
					t.Errorf("%q has %v", listed, sums)
				}
			}
		}
		if strings.TrimSpace(name) == "" {
			return
		}
		escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(name)
		for _, line := range []string{
			`\` + hexSHA256 + "  " + escaped, `\` + hexSHA256 + " *" + escaped, `\SHA256 (` + escaped + ") = " + hexSHA256,
		} {
			got := parseChecksums([]byte(line)).of(path.Clean(name))
			if len(got) != 1 || got[0].version() != "sha256:"+hexSHA256 {
				t.Errorf("%q: the name %q has %v", line, name, got)
			}
		}
	})
}
