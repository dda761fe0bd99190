package cache

import "strings"

// hiddenName returns the origin's name of an image if it does not follow from the
// id, which may be a hash of it, or "". Such a name has to be stored with the files.
func hiddenName(id, name string) string {
	if id == name || strings.HasSuffix(id, "."+name) {
		return ""
	}
	return name
}

// nameOf returns the name by which people know an image; "": not known. hidden is
// its stored hidden name, or "".
func (c *Cache) nameOf(id, hidden string) string {
	if hidden != "" {
		c.cfg.Origins.Learn(id, hidden)
	}
	return c.cfg.Origins.NameOf(id)
}

// keptName returns the hidden name that was stored with an image's file, pin or
// entry in the queue, or "".
func (c *Cache) keptName(id string) string {
	if im := c.index.Get(id); im != nil {
		if name := c.index.View(im).File.Name; name != "" {
			return name
		}
	}
	if pin, ok := c.pins.Get(id, c.cfg.Now()); ok && pin.Name != "" {
		return pin.Name
	}
	return c.store.QueueNote(id)
}

// nameToKeep returns the hidden name of an image, or "" if it has none or it is not
// known.
func (c *Cache) nameToKeep(id string) string {
	_, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return ""
	}
	return hiddenName(id, name)
}
