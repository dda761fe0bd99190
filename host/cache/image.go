package cache

import (
	"time"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// image is one generation of a cached image: another version of the same id,
// or the same version fetched again, is another image. Those fields that
// can change belong to the index's mutex.
type image struct {
	id   string
	key  sdk.Key
	size int64 // bytes

	info     store.Info // may become richer when the file is opened
	admitted time.Time  // when it was committed, on this host's clock
	seen     blockSet   // blocks that were read and found right since the start; guards itself

	hits     uint64    // the driver's record plus what the record log holds
	accessed time.Time // start of the last GET, or the commit; see index.moment
	used     time.Time // the same by this host's clock; zero: not since the start
	guessed  bool      // accessed is: the file's time was no help
	checked  time.Time // when the origin last confirmed the version; zero: never
	readers  int       // open now
	holders  int       // the readers, and whoever else has the file open
	removed  bool      // no longer in the index: its file is in trash or gone
	unlinked bool      // the file has no name any more
}

func (im *image) record() sdk.Record {
	r := sdk.Record{
		Key:      im.key,
		Size:     uint64(im.size),
		Hits:     im.hits,
		Admitted: im.admitted.UnixNano(),
		Accessed: im.accessed.UnixNano(),
		FetchMS:  im.info.FetchMS,
	}
	if im.readers > 0 {
		r.Flags |= sdk.FlagInUse
	}
	return r
}

func (im *image) entry() sdk.Entry {
	return sdk.Entry{
		ID:           im.id,
		Version:      im.info.Version,
		Size:         im.size,
		Hits:         im.hits,
		LastAccessed: im.accessed,
		LastModified: im.admitted,
	}
}

// fileID names a file that an image is in, as long as its bytes are charged.
type fileID struct {
	id    string
	inode uint64
}

func (im *image) file() fileID { return fileID{im.id, im.info.Inode} }

// use is how an image is used at one moment.
type use struct {
	Readers  int       // open now
	Admitted time.Time // when it was committed
	Accessed time.Time // start of the last GET
}

// use must be called under the index's mutex.
func (im *image) use() use {
	return use{Readers: im.readers, Admitted: im.admitted, Accessed: im.accessed}
}

// view is what is known of an image at one moment.
type view struct {
	ID       string
	Size     int64 // bytes
	Hits     uint64
	Accessed time.Time
	Admitted time.Time
	Readers  int
	File     store.Info
}

// view must be called under the index's mutex.
func (im *image) view() view {
	return view{
		ID: im.id, Size: im.size, Hits: im.hits, Accessed: im.accessed, Admitted: im.admitted,
		Readers: im.readers, File: im.info,
	}
}
