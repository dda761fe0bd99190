package xattr

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// sources holds the last complete batch of each record log, the one that wrote
// last in front. It is an attribute of .imgcache, in the form of records:
//
//	v1 batch=<source>/17 used=2026-11-23T01:02:03Z batch=… crc32c=1a2b3c4d
type sources []source

type source struct {
	batch
	used time.Time // when it was written, in whole seconds
}

const (
	// sourceLife is how long the number of a source is kept after its last
	// batch. A host goes on with its source for years, and leaves one behind
	// only when it has to reconcile. One that was away for longer finds its
	// source unknown, reconciles, and loses no more than the hits that it had
	// not sent.
	sourceLife = 30 * 24 * time.Hour

	// maxSources is how many fit into an attribute where all of a file share
	// 4 KiB. A host has one.
	maxSources = 32
)

// last returns the number of the last complete batch of a source, 0 when it is
// unknown.
func (s sources) last(key string) uint64 {
	seq, _ := s.find(key)
	return seq
}

func (s sources) find(key string) (seq uint64, known bool) {
	for _, one := range s {
		if one.source == key {
			return one.seq, true
		}
	}
	return 0, false
}

// with returns the sources after a batch.
func (s sources) with(b batch, now time.Time) sources {
	list := sources{{b, now.UTC().Truncate(time.Second)}}
	for _, one := range s {
		if one.source != b.source && len(list) < maxSources && now.Sub(one.used) < sourceLife {
			list = append(list, one)
		}
	}
	return list
}

// unknown returns those of some batches of which it is not known that they are
// complete: the files that they touched must remember them.
func (s sources) unknown(batches []batch) []batch {
	return slices.DeleteFunc(slices.Clone(batches), func(b batch) bool { return b.seq <= s.last(b.source) })
}

func (s sources) encode() string {
	fields := make([]string, len(s))
	for i, one := range s {
		fields[i] = fmt.Sprintf("batch=%s used=%s", one.batch, encodeTime(one.used))
	}
	return seal(strings.Join(fields, " "))
}

func parseSources(text string) (sources, error) {
	p := parser{rest: unseal(text)}
	var s sources
	for p.has("batch=") {
		s = append(s, source{p.batch("batch="), p.time("used=")})
	}
	if s.encode() != text {
		return nil, errDamaged
	}
	return s, nil
}
