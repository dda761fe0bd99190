package origintest

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// content makes the bytes of a version of an image. Each word of eight bytes is a
// hash of the image, the version and its place, so it differs from every word of
// another version.
type content struct {
	seed uint64
	size int64
}

func newContent(name string, number int, size int64) content {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return content{seed: mix(h.Sum64() + uint64(number)), size: size}
}

// mix is the step of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// part returns the bytes [from, to).
func (c content) part(from, to int64) []byte {
	first := from / 8
	b := make([]byte, 0, to-8*first+8)
	for word := first; 8*word < to; word++ {
		b = binary.LittleEndian.AppendUint64(b, mix(c.seed+uint64(word)))
	}
	return b[from-8*first : to-8*first]
}

// has reports whether p has the bytes from off on.
func (c content) has(p []byte, off int64) bool {
	end := off + int64(len(p))
	if end > c.size {
		return false
	}
	look := min(end, off+16) // most versions differ at once
	return slices.Equal(c.part(off, look), p[:look-off]) && slices.Equal(c.part(look, end), p[look-off:])
}
