package fromglance

import (
	"strconv"
	"strings"

	"github.com/imgcache/imgcache-host/host/config"
)

// store is where Glance keeps new images.
type store struct {
	kind    setting // "file", "rbd", "swift"...
	section string  // of its options
	others  string  // further ones, as they are listed
}

// store finds the default one of several stores, or the only one.
func (t *translator) store() (store, error) {
	backends, err := t.options.get(defaultSection, "enabled_backends", "")
	if err != nil {
		return store{}, err
	}
	if backends.value == "" {
		kind, err := t.options.get("glance_store", "default_store", "file")
		return store{kind: kind, section: "glance_store"}, err
	}
	chosen, err := t.options.get("glance_store", "default_backend", "")
	if err != nil {
		return store{}, err
	}
	var found store
	var others []string
	for entry := range strings.SplitSeq(backends.value, ",") {
		name, kind, _ := strings.Cut(strings.TrimFunc(entry, isSpace), ":")
		if found.section == "" && (name == chosen.value || !chosen.isSet()) {
			found.kind, found.section = backends, groupName(name)
			found.kind.value = strings.TrimFunc(kind, isSpace)
			continue
		}
		others = append(others, name)
	}
	if found.section == "" {
		return store{}, chosen.errorf("there is no such store in %s (%s)", backends.name(), backends.at())
	}
	found.others = strings.Join(others, ", ")
	return found, nil
}

// origin is the directory of Glance's images, where they are files.
func (t *translator) origin() error {
	s, err := t.store()
	if err != nil {
		return err
	}
	if s.others != "" {
		t.note("Glance has further stores: %s. The images in them are not at the origin, and are not found.", s.others)
	}
	switch s.kind.value {
	case "file", "filesystem":
		return t.files(s)
	}
	b := t.out.block("origin", config.OriginHTTP, "glance")
	b.remark("Images are in the store %q (%s), which this service cannot read. Give the URL of a web server", s.kind.value, source(s.kind))
	b.remark("that has them under their ids, in the variable or in its place.")
	b.set("endpoint", call("env", originVariable), "")
	t.note("Glance's images are in the store %q, which this service cannot read. Set %s to the URL of a web server that has them under their ids.", s.kind.value, originVariable)
	return nil
}

func (t *translator) files(s store) error {
	dir, err := t.options.get(s.section, "filesystem_store_datadir", "")
	if err != nil {
		return err
	}
	if dir.value == "" {
		if dir, err = t.foremost(s.section, dir); err != nil {
			return err
		}
	}
	if err := t.directory(dir); err != nil {
		return err
	}
	t.out.block("origin", config.OriginDirectory, "glance").set("path", text(dir.value), source(dir))
	return nil
}

// foremost returns the directory with the highest priority of those that a
// store has, or Glance's default when it has none.
func (t *translator) foremost(section string, unset setting) (setting, error) {
	dirs, err := t.options.all(section, "filesystem_store_datadirs")
	if err != nil {
		return setting{}, err
	}
	if len(dirs) == 0 {
		return setting{section: section, option: unset.option, value: defaultImages}, nil
	}
	best, highest := setting{}, -1
	for _, d := range dirs {
		priority := 0
		if path, after, ok := strings.Cut(d.value, ":"); ok {
			d.value = path
			if priority, err = strconv.Atoi(strings.TrimFunc(after, isSpace)); err != nil || priority < 0 {
				return setting{}, d.errorf("expected PATH:PRIORITY, where the priority is a whole number")
			}
		}
		if priority > highest {
			best, highest = d, priority
		}
	}
	if len(dirs) > 1 {
		t.note("Glance has %d directories of images. The origin is the foremost, %s; the images in the others are not found.", len(dirs), best.value)
	}
	return best, nil
}
