package plugin

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgcache/imgcache-host/sdk"
)

// binary is the very bytes that were hashed, ready to be run: whatever happens
// to the plugin's file from now on does not reach them. The interpreter of a
// script and the libraries that a program loads are files of the system and no
// part of it.
type binary struct {
	name        string   // of the file that was read
	path        string   // of what is executed or, a module or script, loaded
	file        *os.File // the sealed copy of a program or module, to be descriptor binaryFD of the process; nil: a script
	interpreter []string // of a script: the program and at most one argument
	sum         string   // SHA-256 in lower-case hex
	signature   string   // what Config.Admit says of it
}

const (
	// binaryFD is the descriptor of the sealed copy in the process.
	binaryFD = 4
	// maxBinary bounds what is read into memory.
	maxBinary = 512 << 20
	// shebang begins a script.
	shebang = "#!"
	// maxShebang is what the kernel reads of the first line of a script.
	maxShebang = 256
)

// stage copies the plugin's file to where nobody writes and checks its sum on
// the way.
func (s *Supervisor) stage(spec Spec) (*binary, error) {
	f, err := s.openTrusted(spec.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := s.copyOf(f, spec)
	if err != nil {
		return nil, fmt.Errorf("prepare %s to be run: %w", spec.Path, err)
	}
	if err := s.admit(spec, b); err != nil {
		b.remove()
		return nil, err
	}
	return b, nil
}

// Candidate is a plugin whose bytes are about to run.
type Candidate struct {
	Name    string
	Kind    sdk.Kind // empty: unknown
	Path    string
	SHA256  string                 // lower-case hex
	Content func() ([]byte, error) // the bytes themselves
}

// admit asks the configuration whether these bytes may run.
func (s *Supervisor) admit(spec Spec, b *binary) (err error) {
	if err := spec.checkSum(b.sum); err != nil || s.cfg.Admit == nil {
		return err
	}
	b.signature, err = s.cfg.Admit(Candidate{spec.Name, spec.Kind, spec.Path, b.sum, b.content})
	return err
}

// content returns the bytes that were hashed.
func (b *binary) content() ([]byte, error) {
	if b.file == nil {
		return os.ReadFile(b.path)
	}
	return io.ReadAll(io.NewSectionReader(b.file, 0, maxBinary))
}

// copyOf copies a file as its kind wants it.
func (s *Supervisor) copyOf(f *os.File, spec Spec) (*binary, error) {
	in := bufio.NewReader(io.LimitReader(f, maxBinary+1))
	head, err := in.Peek(maxShebang)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Size() > maxBinary { // before all that is copied
		return nil, fmt.Errorf("it is larger than %d bytes", maxBinary)
	}
	b := &binary{name: spec.Path}
	switch {
	case spec.runtime() == runtimeWasm:
		err = b.seal(in, spec.Name, unix.MFD_NOEXEC_SEAL)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		err = b.seal(in, spec.Name, unix.MFD_EXEC)
	case bytes.HasPrefix(head, []byte(shebang)):
		if b.interpreter, err = interpreter(head); err == nil {
			err = b.putAside(in, s.sockets)
		}
	default:
		err = errors.New("it is neither a program (ELF) nor a script whose first line begins with #!, and not named NAME.wasm")
	}
	if err != nil {
		b.remove()
		return nil, err
	}
	return b, nil
}

// seal copies a program or module into memory that nobody can write to, and
// that has no name by which somebody could put another in its place.
func (b *binary) seal(from io.Reader, name string, use int) error {
	fd, err := memfd(name, use)
	if err != nil {
		return err
	}
	b.file, b.path = os.NewFile(uintptr(fd), name), fmt.Sprintf("/proc/self/fd/%d", binaryFD)
	if err := b.copyTo(b.file, from); err != nil {
		return err
	}
	const all = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(b.file.Fd(), unix.F_ADD_SEALS, all); err != nil {
		return fmt.Errorf("seal the copy in memory: %w", err)
	}
	return nil
}

// memfd makes a file in memory. Before Linux 6.3 such a file does not say what
// it is for.
func memfd(name string, use int) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|use)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if errors.Is(err, unix.EACCES) {
		return fd, fmt.Errorf("make a copy in memory: %w: sysctl vm.memfd_noexec must be 0 or 1", err)
	}
	if err != nil {
		return fd, fmt.Errorf("make a copy in memory: %w", err)
	}
	return fd, nil
}

// putAside copies a script into a directory of the host's own, because not
// every interpreter runs what has no name. New removes what is left there.
func (b *binary) putAside(from io.Reader, below string) error {
	dir, err := os.MkdirTemp(below, "plugin-script-")
	if err != nil {
		return fmt.Errorf("make a directory for the copy: %w", err)
	}
	b.path = filepath.Join(dir, filepath.Base(b.name))
	out, err := os.OpenFile(b.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o500)
	if err != nil {
		return fmt.Errorf("make a copy: %w", err)
	}
	return errors.Join(b.copyTo(out, from), out.Close())
}

func (b *binary) copyTo(to io.Writer, from io.Reader) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(to, h), from)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	if n > maxBinary {
		return fmt.Errorf("it is larger than %d bytes", maxBinary)
	}
	b.sum = hex.EncodeToString(h.Sum(nil))
	return nil
}

// interpreter returns what the first line of a script names, read as the kernel
// does: a path and, after blanks, everything else as one argument. The host
// starts it itself, because a run directory is often mounted with noexec.
func interpreter(head []byte) ([]string, error) {
	line, _, ended := strings.Cut(string(head[len(shebang):]), "\n")
	if !ended && len(head) == maxShebang {
		return nil, fmt.Errorf("its first line is longer than %d bytes", maxShebang)
	}
	const blanks = " \t"
	line = strings.Trim(line, blanks)
	program, arg := line, ""
	if end := strings.IndexAny(line, blanks); end >= 0 {
		program, arg = line[:end], strings.Trim(line[end:], blanks)
	}
	if !filepath.IsAbs(program) {
		return nil, fmt.Errorf("its first line names the interpreter %q; expected an absolute path", program)
	}
	if arg == "" {
		return []string{program}, nil
	}
	return []string{program, arg}, nil
}

// argv returns the program that is executed, and its arguments from the name
// of the program on.
func (b *binary) argv(args []string) (program string, argv []string) {
	if b.interpreter == nil {
		return b.path, append([]string{b.name}, args...)
	}
	argv = append(append(argv, b.interpreter...), b.path)
	return b.interpreter[0], append(argv, args...)
}

// named gives an error of the start the name of the plugin's file.
func (b *binary) named(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) && failed.Path == b.path {
		failed.Path = b.name
	}
	return err
}

// remove frees the copy.
func (b *binary) remove() {
	switch {
	case b.file != nil:
		_ = b.file.Close()
	case b.path != "":
		_ = os.RemoveAll(filepath.Dir(b.path)) // what is left, the next start removes
	}
}
