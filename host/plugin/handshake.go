package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// maxHandshake bounds the first line of a process. A path has at most 107
	// bytes. The rest is enough for a certificate, so that a plugin that sends
	// one gets the right error.
	maxHandshake = 4 << 10
	// handshakeForm is the line that every plugin writes.
	handshakeForm = "1|1|unix|PATH|grpc|"
	// maxQuoted is how many bytes of a plugin's text an error repeats: enough for
	// a line with the longest path.
	maxQuoted = 160
)

// agreed is the line that go-plugin reads in place of that of the process. Its
// address leads nowhere: [endpoint.dial] makes the connections.
var agreed = fmt.Sprintf("%d|%d|unix|%s|grpc|\n", goplugin.CoreProtocolVersion, sdk.Protocol, agreedAddr)

const agreedAddr = "/checked"

// quoted returns a plugin's text for an error, escaped and not too long.
func quoted(s string) string {
	if len(s) <= maxQuoted {
		return strconv.QuoteToASCII(s)
	}
	return fmt.Sprintf("%s and %d bytes more", strconv.QuoteToASCII(s[:maxQuoted]), len(s)-maxQuoted)
}

// parseHandshake returns the path of the socket in a line. It does not check whether
// there is a socket. Errors say what was found and what was expected.
func parseHandshake(line string) (path string, err error) {
	refuse := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("%w: handshake: %s; the line is %s, expected %s", sdk.ErrInvalid, fmt.Sprintf(format, args...), quoted(line), handshakeForm)
	}
	fields := strings.Split(line, "|")
	if n := len(fields); n < 5 || n > 6 { // the last one is empty; older libraries omit it
		return refuse("it has %d fields, expected 6", n)
	}
	if core := strconv.Itoa(goplugin.CoreProtocolVersion); fields[0] != core {
		return refuse("its version is %s, expected %s", quoted(fields[0]), core)
	}
	version, err := strconv.ParseUint(fields[1], 10, 16)
	if err != nil {
		return refuse("the version of the contract is %s, expected %d", quoted(fields[1]), sdk.Protocol)
	}
	if err := (sdk.Manifest{MinProtocol: int(version), MaxProtocol: int(version)}).Speaks(sdk.Protocol); err != nil {
		return "", err
	}
	switch {
	case fields[2] != "unix":
		return refuse("the network is %s, expected unix", quoted(fields[2]))
	case fields[4] != "grpc":
		return refuse("the protocol is %s, expected grpc", quoted(fields[4]))
	case len(fields) == 6 && fields[5] != "":
		return refuse("it has a certificate, which this host did not ask for")
	}
	return fields[3], nil
}

// readHandshake reads the first line, but at most maxHandshake bytes.
func readHandshake(out *bufio.Reader) (line string, err error) {
	text, err := out.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("%w: handshake: the first line of standard output has more than %d bytes and begins with %s, expected %s",
			sdk.ErrInvalid, maxHandshake, quoted(string(text[:maxQuoted])), handshakeForm)
	case err != nil && len(text) == 0:
		return "", fmt.Errorf("%w: handshake: standard output ended before its first line, expected %s", sdk.ErrInvalid, handshakeForm)
	case err != nil:
		return "", fmt.Errorf("%w: handshake: standard output ended within its first line, %s, expected %s", sdk.ErrInvalid, quoted(string(text)), handshakeForm)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// handshake waits until the process says where it listens, and checks whether it may
// listen there.
func (c *child) handshake(ctx context.Context) error {
	begun := time.Now()
	stop := context.AfterFunc(ctx, func() { _ = c.kill() }) // this ends the output
	defer stop()
	out := bufio.NewReaderSize(c.output, maxHandshake)
	line, err := readHandshake(out)
	if ctx.Err() != nil {
		return fmt.Errorf("%w: handshake: no line on standard output within %v, expected %s",
			sdk.ErrUnavailable, time.Since(begun).Round(time.Second), handshakeForm)
	}
	if err != nil {
		return err
	}
	path, err := parseHandshake(line)
	if err != nil {
		return err
	}
	c.stdout = io.NopCloser(io.MultiReader(strings.NewReader(agreed), &ignored{from: out}))
	return c.place.take(path)
}

// ignored reads everything that a process prints after its first line and drops it,
// so that the process does not wait for a reader.
type ignored struct{ from io.Reader }

// Read returns when the output has ended.
func (i *ignored) Read([]byte) (int, error) {
	if _, err := io.Copy(io.Discard, i.from); err != nil {
		return 0, err
	}
	return 0, io.EOF
}
