package cache

import "strings"

// hiddenName is the origin's name of an image, if its id does not tell it: it
// has to be kept with the files, for a hash has no way back.
func hiddenName(id, name string) string {
	if id == name || strings.HasSuffix(id, "."+name) {
		return ""
	}
	return name
}

// nameOf returns what people call an image; "" when that is not known. Hidden is
// its hidden name where that was kept, else "".
func (c *Cache) nameOf(id, hidden string) string {
	if hidden != "" {
		c.cfg.Origins.Learn(id, hidden)
	}
	return c.cfg.Origins.NameOf(id)
}

// keptName returns the hidden name that was kept with what there is of an
// image: its file, its entry in the queue, or its pin.
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

// nameToKeep returns the hidden name of an image, as far as it is known.
func (c *Cache) nameToKeep(id string) string {
	_, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return ""
	}
	return hiddenName(id, name)
}
