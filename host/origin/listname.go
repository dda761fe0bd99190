package origin

import (
	"fmt"
	"path"
	"strings"
)

// check says what is wrong with the names of files.
func (cfg ChecksumsConfig) check() error {
	if err := CheckListName(cfg.File); err != nil {
		return err
	}
	return CheckSignatureName(cfg.Signature, cfg.File)
}

// CheckSignatureName says what is wrong with the name of the signature of a
// list, in words for people. "" is right: it is within the list.
func CheckSignatureName(signature, list string) error {
	if signature == "" {
		return nil
	}
	if err := CheckListName(signature); err != nil {
		return err
	}
	if strings.Contains(signature, thisImage) && !strings.Contains(list, thisImage) {
		return fmt.Errorf("%q would be a signature for each image, but %q is one list for several", signature, list)
	}
	return nil
}

// CheckListName says what is wrong with the name of a list or a signature, in
// words for people.
func CheckListName(file string) error {
	name := strings.TrimPrefix(strings.ReplaceAll(file, thisImage, "x"), "/")
	if !isName(name) || strings.ContainsAny(name, "{}") {
		return fmt.Errorf(`%q is no name of a file such as "SHA256SUMS", "/all/SHA256SUMS" or "{name}.sha256"`, file)
	}
	if strings.TrimPrefix(file, "/") == thisImage {
		return fmt.Errorf("%q is the image itself", file)
	}
	return nil
}

// thisImage stands for the name of an image in that of a list.
const thisImage = "{name}"

// files returns the names of the list for an image and of its signature, which
// is "" where there is none.
func (cfg ChecksumsConfig) files(name string) (file, signature string) {
	name, _, _ = strings.Cut(name, "?") // the list lies on no path with a query, and no image with one is in it
	file = beside(cfg.File, path.Dir(name), name)
	if cfg.Keyring != nil && cfg.Signature != "" {
		signature = beside(cfg.Signature, path.Dir(file), name)
	}
	return file, signature
}

// beside returns the name of a file in a directory, or of one for all images.
func beside(pattern, dir, name string) string {
	if whole, ok := strings.CutPrefix(pattern, "/"); ok {
		return path.Clean(strings.ReplaceAll(whole, thisImage, name))
	}
	return path.Join(dir, strings.ReplaceAll(pattern, thisImage, path.Base(name)))
}

// isList reports whether a name is that of a list or of a signature, whatever
// image it is for. They are not listed themselves.
func (cfg ChecksumsConfig) isList(name string) bool {
	signature := cfg.Signature
	if !strings.HasPrefix(signature, "/") {
		// It lies beside the list, which may lie deeper than the image.
		signature = path.Join(path.Dir(cfg.File), signature)
	}
	return matchesList(cfg.File, name) || cfg.Keyring != nil && cfg.Signature != "" && matchesList(signature, name)
}

// matchesList reports whether a name can be made of a pattern.
func matchesList(pattern, name string) bool {
	if whole, ok := strings.CutPrefix(pattern, "/"); ok {
		before, behind, any := strings.Cut(whole, thisImage)
		return name == whole || any && len(name) > len(before)+len(behind) &&
			strings.HasPrefix(name, before) && strings.HasSuffix(name, behind)
	}
	want, have := strings.Split(pattern, "/"), strings.Split(name, "/")
	if len(have) < len(want) {
		return false
	}
	for i, segment := range have[len(have)-len(want):] {
		before, behind, any := strings.Cut(want[i], thisImage)
		if segment != want[i] && (!any || len(segment) <= len(before)+len(behind) ||
			!strings.HasPrefix(segment, before) || !strings.HasSuffix(segment, behind)) {
			return false
		}
	}
	return true
}

// listed returns what a list says of an image. A list for all images knows them
// by their whole names; one beside them by the rest behind their directory; and
// one of an image speaks of this one alone. The names in it are those of files.
func (cfg ChecksumsConfig) listed(l checksumList, name string) []Digest {
	file, err := fileName(name)
	switch {
	case err != nil:
		return nil
	case strings.Contains(cfg.File, thisImage):
		return l.ofOne(path.Base(file))
	case strings.HasPrefix(cfg.File, "/"):
		return l.of(file)
	}
	return l.of(path.Base(file))
}
