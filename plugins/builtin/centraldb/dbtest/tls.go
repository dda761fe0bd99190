package dbtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TLS is how a server is reached over TCP on loopback. The files are in PEM
// form.
type TLS struct {
	port      int
	CA        string // who signed the certificate of the server, which is for localhost
	Cert, Key string // of a client, signed by the same
	OtherCA   string // who signed nothing
}

// DSN leads a dsn of the server over TCP, to a name of this machine.
func (s TLS) DSN(dsn, host string) string {
	scheme, rest, _ := strings.Cut(dsn, "://")
	user, path, _ := strings.Cut(rest, "@")
	path, _, _ = strings.Cut(path, "?")
	return fmt.Sprintf("%s://%s@%s:%d%s", scheme, user, host, s.port, path)
}

// TLS starts the server anew, so that it also speaks TLS, until the test ends.
func (s *Server) TLS(t testing.TB) TLS {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	dir := t.TempDir()
	ours, other := newAuthority(t, filepath.Join(dir, "ca.pem")), newAuthority(t, filepath.Join(dir, "other.pem"))
	result := TLS{port: port, CA: ours.file, OtherCA: other.file}
	result.Cert, result.Key = ours.sign(t, dir, "client")
	cert, key := ours.sign(t, s.dir, "localhost")
	ca := filepath.Join(s.dir, "ca.pem")
	b, err := os.ReadFile(ours.file)
	if err == nil {
		err = os.WriteFile(ca, b, 0o644)
	}
	if err == nil {
		err = s.give(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.restart(t, port, s.kind.secure(port, ca, cert, key))
	t.Cleanup(func() { s.restart(t, 0, nil) })
	return result
}

// restart starts the server with arguments besides its own.
func (s *Server) restart(t testing.TB, port int, more []string) {
	t.Helper()
	s.Stop()
	s.port, s.more = port, more
	s.Start(t)
}

// authority signs certificates.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, file string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{file: file, key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	a.write(t, file, a.cert, key)
	return a
}

// sign makes the certificate of a name, and its key.
func (a authority) sign(t testing.TB, dir, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	writePEM(t, key, "EC PRIVATE KEY", der)
	a.write(t, cert, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, k)
	return cert, key
}

func (a authority) write(t testing.TB, file string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, file, "CERTIFICATE", der)
}

func writePEM(t testing.TB, file, what string, der []byte) {
	t.Helper()
	mode := os.FileMode(0o644)
	if strings.HasSuffix(file, ".key") {
		mode = 0o600
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: what, Bytes: der}), mode); err != nil {
		t.Fatal(err)
	}
}
