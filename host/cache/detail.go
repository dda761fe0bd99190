package cache

import (
	"errors"

	"github.com/imgcache/imgcache-host/host/origin"
)

// Detail is what is special about an answer, as one of a few words that may be
// told to anybody: none says anything about the host. The reason at length is in
// the log and in [ImageInfo].
type Detail string

// The details of a hit.
const (
	DetailStale      Detail = "stale"      // the origin could not confirm it
	DetailUnverified Detail = "unverified" // its file has no block table
)

// The details of a miss: why it is not stored. Those with the name of an option
// are what that option does.
const (
	DetailMaxImageSize  Detail = "max_image_size"
	DetailAdmitAfter    Detail = "admit_after"
	DetailColdPerClient Detail = "cold_per_client"
	DetailNoStore       Detail = "no-store"       // the origin forbids it
	DetailNotAnImage    Detail = "not-an-image"   // something else came in its place
	DetailLengthUnknown Detail = "length-unknown" // a transfer that is cut would look like a whole one
	DetailNotShared     Detail = "not-shared"     // another transfer of the image runs that cannot be followed
	DetailNoRoom        Detail = "no-room"        // nothing that may leave makes enough room
	DetailDeleted       Detail = "deleted"        // while it was fetched
	DetailDisk          Detail = "disk"           // the cache directory cannot be used, or written to
)

// Details returns every detail that there is.
func Details() []Detail {
	return []Detail{
		DetailStale, DetailUnverified,
		DetailMaxImageSize, DetailAdmitAfter, DetailColdPerClient, DetailNoStore, DetailNotAnImage, DetailLengthUnknown,
		DetailNotShared, DetailNoRoom, DetailDeleted, DetailDisk,
	}
}

// notAdmitted is why an image is not to be stored, whatever room there is. It is
// an errNotAdmitted.
type notAdmitted struct {
	detail Detail
	why    string // at length
}

func (e notAdmitted) Error() string        { return errNotAdmitted.Error() + ": " + e.why }
func (e notAdmitted) Is(target error) bool { return target == errNotAdmitted }

// refusedBy returns why what the origin sends is not to be stored, or nil.
func refusedBy(obj origin.Object) error {
	detail := DetailLengthUnknown
	switch {
	case obj.Refused == "":
		return nil
	case obj.Refused == origin.RefusedNoStore:
		detail = DetailNoStore
	case obj.Refused.NotAnImage():
		detail = DetailNotAnImage
	}
	return notAdmitted{detail, string(obj.Refused)}
}

// detailOf returns the word for the reason why an image is not stored. Whatever
// is none of the others is trouble with the disk, as for storeFailed.
func detailOf(err error) Detail {
	var refused notAdmitted
	var disk diskError
	switch {
	case errors.As(err, &refused):
		return refused.detail
	case errors.As(err, &disk):
		return DetailDisk
	case errors.Is(err, ErrNoSpace):
		return DetailNoRoom
	case errors.Is(err, errDeleted):
		return DetailDeleted
	}
	return DetailDisk
}
