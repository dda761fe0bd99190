package origin

// pairing joins the digests of an image with what else the origin said of it.
type pairing struct {
	now     Validators // as the origin has them
	version string     // by which it knows the bytes
	digests []Digest
}

// rememberedPairings is how many are known at least, of the images that were
// asked for of late: far more than are fetched at once. A forgotten one costs a
// question to the origin.
const rememberedPairings = 1 << 12

// declares reports whether version is one of the digests.
func (p pairing) declares(version string) bool { return declares(p.digests, version) }

// declares reports whether version is one of digests.
func declares(digests []Digest, version string) bool {
	for _, d := range digests {
		if d.version() == version {
			return true
		}
	}
	return false
}
