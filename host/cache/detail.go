package cache

import (
	"errors"

	"github.com/imgcache/imgcache-host/host/origin"
)

// Detail is one of a few words for what is special about an answer. Every client
// may see them, since they say nothing about the host. The full reason is in the
// log and in [ImageInfo].
type Detail string

// The details of a hit.
const (
	DetailStale      Detail = "stale"      // the origin could not confirm it
	DetailUnverified Detail = "unverified" // its file has no block table
)

// The details of a miss: why it is not stored. If a detail has the name of an
// option, that option is the reason.
const (
	DetailMaxImageSize  Detail = "max_image_size"
	DetailAdmitAfter    Detail = "admit_after"
	DetailColdPerClient Detail = "cold_per_client"
	DetailNoStore       Detail = "no-store"       // the origin forbids it
	DetailNotAnImage    Detail = "not-an-image"   // something else came in its place
	DetailLengthUnknown Detail = "length-unknown" // a transfer that breaks off would look like a complete one
	DetailNotShared     Detail = "not-shared"     // another transfer of the image is running, but cannot be followed
	DetailNoRoom        Detail = "no-room"        // the images that may leave do not make enough room
	DetailDeleted       Detail = "deleted"        // it was deleted during the transfer
	DetailDisk          Detail = "disk"           // the cache directory cannot be used or written to
)

// Details returns all details.
func Details() []Detail {
	return []Detail{
		DetailStale, DetailUnverified,
		DetailMaxImageSize, DetailAdmitAfter, DetailColdPerClient, DetailNoStore, DetailNotAnImage, DetailLengthUnknown,
		DetailNotShared, DetailNoRoom, DetailDeleted, DetailDisk,
	}
}

// notAdmitted says why an image is not to be stored even if there is room. It is an
// errNotAdmitted.
type notAdmitted struct {
	detail Detail
	why    string // the full reason
}

func (e notAdmitted) Error() string        { return errNotAdmitted.Error() + ": " + e.why }
func (e notAdmitted) Is(target error) bool { return target == errNotAdmitted }

// refusedBy returns why the origin's answer is not to be stored, or nil.
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

// detailOf returns the word for the reason why an image is not stored. As for
// storeFailed, every reason without a word of its own is a failure of the disk.
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
