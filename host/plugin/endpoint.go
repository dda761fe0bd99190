package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgcache/imgcache-host/sdk"
)

// endpoint is where one process listens: a socket of its own in the directory that it
// was given. Connections are made to exactly the socket that was checked, even if its
// name leads to another one later.
type endpoint struct {
	path    string
	dir     *os.File            // opened before the process was started
	socket  *os.File            // nil: take was not called yet
	uid     int                 // the user who must own the socket and the process that listens
	belongs func(pid int) error // returns an error for a process that may not listen
}

// newEndpoint opens the directory, which only the host has used so far.
func newEndpoint(dir string, belongs func(pid int) error) (*endpoint, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the directory of its socket: %w", err)
	}
	return &endpoint{path: dir, dir: os.NewFile(uintptr(fd), dir), uid: os.Geteuid(), belongs: belongs}, nil
}

// take checks the socket at this path and makes it the one that is dialled. Errors
// say what is there instead.
func (e *endpoint) take(path string) error {
	name, inside := strings.CutPrefix(path, e.path+"/")
	if !inside || name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%w: handshake: the address is %s, expected a socket in %s, which PLUGIN_UNIX_SOCKET_DIR names",
			sdk.ErrInvalid, quoted(path), e.path)
	}
	fd, err := unix.Openat(int(e.dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: handshake: open the socket %s: %w", sdk.ErrInvalid, quoted(path), err)
	}
	socket := os.NewFile(uintptr(fd), "socket of a plugin")
	if err := e.check(fd); err != nil {
		_ = socket.Close()
		return fmt.Errorf("%w: handshake: %s %w", sdk.ErrInvalid, quoted(path), err)
	}
	e.socket = socket
	return nil
}

// check returns an error unless an open file is a socket to which the host may
// connect.
func (e *endpoint) check(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot be examined: %w", err)
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return errors.New("is a link, expected a socket")
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("has the type %#o, expected a socket, %#o", st.Mode&unix.S_IFMT, unix.S_IFSOCK)
	case int(st.Uid) != e.uid:
		return fmt.Errorf("belongs to the user %d, expected %d", st.Uid, e.uid)
	case st.Nlink != 1: // 0: it was removed; more: another process may have it too
		return fmt.Errorf("has %d names, expected one", st.Nlink)
	}
	return nil
}

// dial connects to the socket that was taken. It fails, before anything is sent, if
// the process that listens may not.
func (e *endpoint) dial(ctx context.Context, _ string) (conn net.Conn, err error) {
	if e.socket == nil {
		return nil, fmt.Errorf("%w: no socket was named", sdk.ErrUnavailable)
	}
	raw, err := e.socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	gone := raw.Control(func(fd uintptr) { // fd stays the number of this socket meanwhile
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
	})
	if err = errors.Join(gone, err); err != nil {
		return nil, err
	}
	if err := e.checkPeer(conn.(*net.UnixConn)); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%w: handshake: its socket %w", sdk.ErrInvalid, err)
	}
	return conn, nil
}

// checkPeer returns an error if the process that listens may not.
func (e *endpoint) checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	gone := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(gone, err); err != nil {
		return fmt.Errorf("does not say who listens: %w", err)
	}
	if int(peer.Uid) != e.uid {
		return fmt.Errorf("belongs to a process of the user %d, expected %d", peer.Uid, e.uid)
	}
	if err := e.belongs(int(peer.Pid)); err != nil {
		return fmt.Errorf("belongs to another process: %w", err)
	}
	return nil
}

// close closes the directory and the socket. No connection can be made any more.
func (e *endpoint) close() {
	_ = e.dir.Close()
	if e.socket != nil {
		_ = e.socket.Close()
	}
}
