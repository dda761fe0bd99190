package index

import (
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/check"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Image is one generation of a cached image: another version of the same id,
// or the same version fetched again, is another image. Those fields that
// can change belong to the index's mutex.
type Image struct {
	ID   string
	Key  sdk.Key
	Size int64 // bytes

	Info     store.Info // may become richer when the file is opened
	admitted time.Time  // when it was committed, on this host's clock
	Seen     BlockSet   // blocks that were read and found right since the start; guards itself

	// Check is how the questions to the origin about the image went; guards itself.
	Check check.State

	hits     uint64    // the driver's record plus what the record log holds
	accessed time.Time // start of the last GET, or the commit; see index.moment
	used     time.Time // the same by this host's clock; zero: not since the start
	guessed  bool      // accessed is: the file's time was no help
	readers  int       // open now
	holders  int       // the readers, and whoever else has the file open
	removed  bool      // no longer in the index: its file is in trash or gone
	unlinked bool      // the file has no name any more
}

func (im *Image) record() sdk.Record {
	r := sdk.Record{
		Key:      im.Key,
		Size:     uint64(im.Size),
		Hits:     im.hits,
		Admitted: im.admitted.UnixNano(),
		Accessed: im.accessed.UnixNano(),
		FetchMS:  im.Info.FetchMS,
	}
	if im.readers > 0 {
		r.Flags |= sdk.FlagInUse
	}
	return r
}

func (im *Image) entry() sdk.Entry {
	return sdk.Entry{
		ID:           im.ID,
		Version:      im.Info.Version,
		Size:         im.Size,
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

func (im *Image) file() fileID { return fileID{im.ID, im.Info.Inode} }

// Use is how an image is used at one moment.
type Use struct {
	Readers  int       // open now
	Admitted time.Time // when it was committed
	Accessed time.Time // start of the last GET
}

// use must be called under the index's mutex.
func (im *Image) use() Use {
	return Use{Readers: im.readers, Admitted: im.admitted, Accessed: im.accessed}
}

// View is what is known of an image at one moment.
type View struct {
	ID       string
	Size     int64 // bytes
	Hits     uint64
	Accessed time.Time
	Admitted time.Time
	Readers  int
	File     store.Info
}

// view must be called under the index's mutex.
func (im *Image) view() View {
	return View{
		ID: im.ID, Size: im.Size, Hits: im.hits, Accessed: im.accessed, Admitted: im.admitted,
		Readers: im.readers, File: im.Info,
	}
}
