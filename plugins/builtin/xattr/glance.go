package xattr

import "github.com/imgcache/imgcache-host/sdk"

// glance keeps what Glance keeps and nothing else: hits in user.hits, the last
// access as that of the file. The file's own time and size are the rest, and
// there is no version. Nor is there a place for the number of a batch, so one
// that is sent again after a restart is applied again.
type glance struct {
	dir   *directory
	known sources // since the start
}

// sources takes up an unknown source where it is: only a gap since the start
// can be seen.
func (g *glance) sources(b sdk.Batch) (sources, error) {
	key := sourceKey(b.Source)
	if _, ok := g.known.find(key); !ok {
		return append(sources{{batch: batch{key, b.Seq - 1}}}, g.known...), nil
	}
	return g.known, nil
}

func (g *glance) keepSources(s sources) error {
	g.known = s
	return nil
}

// load finds a record in every image, as Glance does.
func (g *glance) load(im *image) (held, error) {
	hits, err := g.dir.hits(im)
	h := held{exists: true, hits: hits}
	if hits == nil {
		hits = new(uint64)
	}
	h.entry = im.entry(*hits)
	return h, err
}

func (g *glance) store(im *image, old, next held) error {
	if err := g.dir.setHits(im, old.hits, next.entry.Hits); err != nil {
		return err
	}
	at := next.entry.LastAccessed
	if at.IsZero() || at.Equal(old.entry.LastAccessed) {
		return nil
	}
	return g.dir.setAccessed(im, at)
}

func (g *glance) sweep() error { return nil }
