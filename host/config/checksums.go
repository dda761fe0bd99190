package config

import "github.com/imgcache/imgcache-host/host/origin"

// Checksums says where the checksums of an origin's images are listed.
type Checksums struct {
	File      string // name of the list, see origin.ChecksumsConfig; "": there is none
	Required  bool   // images that are not listed are not stored
	Signature Signature
}

// Signature says by whom a list of checksums must be signed.
type Signature struct {
	Keyring string // path of the file with the public keys; "": it need not be signed
	File    string // name of the signature, see origin.ChecksumsConfig; "": it is within the list
}

func (c *Checksums) block() block {
	return block{name: "checksums", body: body{
		args: []arg{
			{name: "file", into: text(&c.File), required: true},
			{name: "required", into: boolean(&c.Required)},
		},
		blocks: []block{{name: "signature", body: body{args: []arg{
			{name: "keyring", into: path(&c.Signature.Keyring), required: true},
			{name: "file", into: text(&c.Signature.File)},
		}}}},
	}}
}

// checkChecksums complains about names that can be no file's, and about keys
// that cannot be read.
func (d *decoder) checkChecksums(c Checksums, at positions) {
	if c.File != "" {
		if err := origin.CheckListName(c.File); err != nil {
			d.errorAt(at.of("checksums.file"), "Bad value of file", "%s", at.sentence(err, "checksums.file"))
		} else if err := origin.CheckSignatureName(c.Signature.File, c.File); err != nil {
			d.errorAt(at.of("checksums.signature.file"), "Bad value of file", "%s", at.sentence(err, "checksums.signature.file", "checksums.file"))
		}
	}
	if c.Signature.Keyring == "" {
		return
	}
	if _, err := origin.ReadKeyring(c.Signature.Keyring); err != nil {
		d.errorAt(at.of("checksums.signature.keyring"), "Unreadable keyring",
			"%s Write the publisher's public keys there, for instance with: gpg --export KEY > %s",
			at.sentence(err, "checksums.signature.keyring"), at.shownBare("checksums.signature.keyring", c.Signature.Keyring))
	}
}
