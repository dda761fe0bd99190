package lock

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"

	"github.com/imgcache/imgcache-host/host/plainfile"
	"github.com/imgcache/imgcache-host/sdk"
)

// key is a public key that is trusted.
type key struct {
	name   string // of its file
	public ed25519.PublicKey
}

// maxKey bounds the file of a key or a signature, in bytes. They have some hundred.
const maxKey = 64 << 10

// readKeys reads public keys as openssl pkey -pubout writes them.
func readKeys(paths []string) (keys []key, err error) {
	for _, path := range paths {
		text, err := plainfile.Read(path, maxKey)
		if err != nil {
			return nil, fmt.Errorf("read the trusted key: %w", err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, notKey(path, "not PEM")
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, notKey(path, err.Error())
		}
		k, ok := public.(ed25519.PublicKey)
		if !ok {
			return nil, notKey(path, fmt.Sprintf("a %T", public))
		}
		keys = append(keys, key{filepath.Base(path), k})
	}
	return keys, nil
}

func notKey(path, is string) error {
	return fmt.Errorf("%w: the trusted key %s is %s; expected a public ed25519 key, as openssl pkey -pubout writes it", sdk.ErrInvalid, path, is)
}

func (k key) signed(content, signature []byte) bool {
	return ed25519.Verify(k.public, content, signature)
}

// signatureOf is the file with the signature of a plugin: 64 bytes, as openssl
// pkeyutl -sign -rawin writes them.
func signatureOf(path string) string { return path + ".sig" }

func readSignature(path string) ([]byte, error) {
	path = signatureOf(path)
	signature, err := plainfile.Read(path, maxKey)
	if err != nil {
		return nil, fmt.Errorf("read the signature: %w", err)
	}
	if len(signature) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: %s has %d bytes; expected an ed25519 signature of %d bytes", sdk.ErrInvalid, path, len(signature), ed25519.SignatureSize)
	}
	return signature, nil
}
