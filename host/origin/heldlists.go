package origin

import "sync"

// heldList is a list of checksums as it was last read.
type heldList struct {
	list    checksumList
	err     error  // why it counts as none
	version string // that the origin had for its text; "": it had none, or was not asked
	signed  string // and for its signature
	size    int64  // bytes of its text
	trouble string // what was said of it; "": all is well
	used    uint64 // when it was last asked for, by a count of questions
}

// usable reports whether there is a list that counts.
func (h heldList) usable() bool { return h.err == nil && h.list.sums != nil }

// heldLists are the lists of late. The zero value is empty.
type heldLists struct {
	mu    sync.Mutex
	lists map[string]heldList
	size  int64
	uses  uint64
}

const (
	// mostHeldText is how many bytes of lists are held: one of the largest, or
	// thousands of usual ones. Taken apart they need four times as many.
	mostHeldText = maxChecksums
	// mostHeldLists is how many there are at most, the empty and missing among
	// them: as many as images whose pairings are remembered.
	mostHeldLists = rememberedPairings
)

// get returns the list of a file, or the zero value.
func (l *heldLists) get(file string) heldList {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lists[file]
}

// keep holds a list, and forgets those that were asked for longest ago when
// there are too many.
func (l *heldLists) keep(file string, held heldList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lists == nil {
		l.lists = map[string]heldList{}
	}
	l.uses++
	held.used = l.uses
	l.size += held.size - l.lists[file].size
	l.lists[file] = held
	for len(l.lists) > 1 && (l.size > mostHeldText || len(l.lists) > mostHeldLists) {
		l.forgetOldest()
	}
}

func (l *heldLists) forgetOldest() {
	oldest, least := "", l.uses+1
	for file, held := range l.lists {
		if held.used < least {
			oldest, least = file, held.used
		}
	}
	l.size -= l.lists[oldest].size
	delete(l.lists, oldest)
}
