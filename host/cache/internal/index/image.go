package index

import (
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/check"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Image is one generation of a cached image: another version of the same id, or
// the same version fetched again, is another Image. Fields that can change are
// guarded by the index's mutex, unless they guard themselves.
type Image struct {
	ID   string
	Key  sdk.Key
	Size int64 // bytes

	Info     store.Info // opening the file may add to it
	admitted time.Time  // when it was committed, on this host's clock
	Seen     BlockSet   // blocks that were read and found correct since the start; guards itself

	// Check is what the origin last answered about the image; it guards itself.
	Check check.State

	hits     uint64    // of the driver's record plus those in the record log
	accessed time.Time // start of the last GET, or the commit; see Index.momentLocked
	used     time.Time // the same on this host's clock; zero: not since the start
	guessed  bool      // accessed is a guess, since the file's time was in the future
	readers  int       // that are open now
	holders  int       // the readers, and all others that have the file open
	removed  bool      // no longer in the index: its file is in trash or gone
	unlinked bool      // the file no longer has a name
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

// fileID identifies the file of an image, as long as its bytes are charged.
type fileID struct {
	id    string
	inode uint64
}

func (im *Image) file() fileID { return fileID{im.ID, im.Info.Inode} }

// Use is how an image is used at one moment.
type Use struct {
	Readers  int       // that are open now
	Admitted time.Time // when it was committed
	Accessed time.Time // start of the last GET
}

// use returns how the image is used now. The caller holds the index's mutex.
func (im *Image) use() Use {
	return Use{Readers: im.readers, Admitted: im.admitted, Accessed: im.accessed}
}

// View is what is known about an image at one moment.
type View struct {
	ID       string
	Size     int64 // bytes
	Hits     uint64
	Accessed time.Time
	Admitted time.Time
	Readers  int
	File     store.Info
}

// view returns what is known about the image now. The caller holds the index's
// mutex.
func (im *Image) view() View {
	return View{
		ID: im.ID, Size: im.Size, Hits: im.hits, Accessed: im.accessed, Admitted: im.admitted,
		Readers: im.readers, File: im.Info,
	}
}
