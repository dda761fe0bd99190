package origin

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/imgcache/imgcache-host/host/plainfile"
)

// Keyring holds the OpenPGP keys of publishers.
type Keyring struct{ keys openpgp.EntityList }

// maxKeyring bounds the file of a keyring. That of all Debian developers has
// 30 MB; the one that is needed here holds a few keys of 10 KB.
const maxKeyring = 64 << 20

// ReadKeyring reads a file with public keys, as gpg --export writes it, armored
// or not. It is an error when there is none in it.
func ReadKeyring(path string) (*Keyring, error) {
	data, err := plainfile.Read(path, maxKeyring)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s holds no public keys as gpg --export writes them: %w", path, err)
	case len(keys) == 0:
		return nil, fmt.Errorf("%s holds no public keys as gpg --export writes them", path)
	}
	return &Keyring{keys}, nil
}

// parseKeys reads keys, armored ones from all the blocks that there are.
func parseKeys(data []byte) (openpgp.EntityList, error) {
	if !bytes.Contains(data, []byte("-----BEGIN PGP")) {
		return openpgp.ReadKeyRing(bytes.NewReader(data))
	}
	var keys openpgp.EntityList
	for _, block := range bytes.SplitAfter(data, []byte("-----END PGP PUBLIC KEY BLOCK-----")) {
		if len(bytes.TrimSpace(block)) == 0 {
			continue
		}
		more, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(block))
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// errTooLarge says that there is more to read than is read.
var errTooLarge = errors.New("too large")

// readBounded reads r to its end, which comes after most bytes at the latest.
func readBounded(r io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%w: more than %d bytes", errTooLarge, most)
	}
	return data, err
}

// verifyDetached returns the text if signature, armored or not, is one of it by
// a key of the ring. A signature that holds a text of its own is one of that
// text, which is then returned. Of several signatures one suffices, by whoever
// is in the ring.
func (k *Keyring) verifyDetached(text, signature []byte) ([]byte, error) {
	if bytes.Contains(signature, clearsignBegin) {
		return k.verifyInline(signature)
	}
	check := openpgp.VerifyDetachedSignature
	if bytes.Contains(signature, []byte("-----BEGIN PGP SIGNATURE")) {
		check = openpgp.VerifyArmoredDetachedSignature
	}
	if _, _, err := check(k.keys, bytes.NewReader(text), bytes.NewReader(signature), signatureRules()); err != nil {
		return nil, fmt.Errorf("check signature: %w", err)
	}
	return text, nil
}

var (
	clearsignBegin = []byte("-----BEGIN PGP SIGNED MESSAGE-----")
	messageBegin   = []byte("-----BEGIN PGP MESSAGE-----")
)

// verifyInline returns what is signed within a text: less what stands around a
// cleartext signature, which nobody has signed.
func (k *Keyring) verifyInline(text []byte) ([]byte, error) {
	if block, _ := clearsign.Decode(text); block != nil {
		if _, _, err := openpgp.VerifyDetachedSignature(k.keys, bytes.NewReader(block.Bytes), block.ArmoredSignature.Body, signatureRules()); err != nil {
			return nil, fmt.Errorf("check signature in the list: %w", err)
		}
		return block.Plaintext, nil
	}
	var message io.Reader = bytes.NewReader(text)
	if bytes.Contains(text, messageBegin) {
		block, err := armor.Decode(message)
		if err != nil {
			return nil, fmt.Errorf("read signed list: %w", err)
		}
		message = block.Body
	}
	return k.verifyMessage(message)
}

// verifyMessage reads a signed message, which may be compressed.
func (k *Keyring) verifyMessage(r io.Reader) ([]byte, error) {
	md, err := openpgp.ReadMessage(r, k.keys, nil, signatureRules())
	if err != nil {
		return nil, fmt.Errorf("no signed list: %w", err)
	}
	text, err := readBounded(md.UnverifiedBody, maxChecksums) // to its end, at which the signature stands
	switch {
	case err != nil:
		return nil, fmt.Errorf("read signed list: %w", err)
	case md.SignatureError != nil:
		return nil, fmt.Errorf("check signature in the list: %w", md.SignatureError)
	case !md.IsSigned || md.SignedBy == nil || md.Signature == nil:
		return nil, errors.New("the list is not signed by a key of the keyring")
	}
	return text, nil
}

// signatureRules are the library's: no MD5, SHA-1, DSA or short RSA key, and
// what counts of a key is whether it was valid when it signed. What is
// compressed may not become larger than a list.
func signatureRules() *packet.Config {
	most := int64(maxChecksums)
	return &packet.Config{MaxDecompressedMessageSize: &most}
}
