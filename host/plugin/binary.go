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

// binary is a copy of exactly the bytes that were hashed, ready to be run. Later
// changes of the plugin's file do not affect it. The interpreter of a script and the
// libraries of a program are files of the system and not part of it.
type binary struct {
	name        string   // of the file that was read
	path        string   // of the program that is executed, or of the module or script that is loaded
	file        *os.File // the sealed copy of a program or module, which becomes descriptor binaryFD of the process; nil: a script
	interpreter []string // of a script: the program and at most one argument
	sum         string   // SHA-256 in lower-case hex
	signature   string   // what Config.Admit says about it
}

const (
	// binaryFD is the descriptor of the sealed copy in the process.
	binaryFD = 4
	// maxBinary bounds how many bytes of a file are read into memory.
	maxBinary = 512 << 20
	// shebang is the beginning of a script.
	shebang = "#!"
	// maxShebang is how many bytes of the first line of a script the kernel reads.
	maxShebang = 256
)

// stage copies the plugin's file to where nobody else can write, and checks the sum
// of the copy.
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

// admit checks the sum of the bytes, and asks Config.Admit whether they may run.
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

// copyOf copies a file in the way that its kind needs.
func (s *Supervisor) copyOf(f *os.File, spec Spec) (*binary, error) {
	in := bufio.NewReader(io.LimitReader(f, maxBinary+1))
	head, err := in.Peek(maxShebang)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Size() > maxBinary { // before it is copied
		return nil, fmt.Errorf("it has %d bytes; expected at most %d", info.Size(), maxBinary)
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
		err = errors.New("it is neither a program (ELF) nor a script; expected one of these, with #! at the beginning of a script, or a module named NAME.wasm")
	}
	if err != nil {
		b.remove()
		return nil, err
	}
	return b, nil
}

// seal copies a program or module into memory. Nobody can write to the copy, and it
// has no name, so nobody can replace it.
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

// memfd makes a file in memory. use says whether it may be executed; kernels before
// Linux 6.3 do not know that.
func memfd(name string, use int) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|use)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if errors.Is(err, unix.EACCES) {
		return fd, fmt.Errorf("make a copy in memory: %w: set sysctl vm.memfd_noexec to 0 or 1", err)
	}
	if err != nil {
		return fd, fmt.Errorf("make a copy in memory: %w", err)
	}
	return fd, nil
}

// putAside copies a script into a private directory of the host, because not every
// interpreter can run a file without a name. New removes what an earlier run left
// there.
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
		return fmt.Errorf("it has more than %d bytes, which is the most", maxBinary)
	}
	b.sum = hex.EncodeToString(h.Sum(nil))
	return nil
}

// interpreter returns the interpreter in the first line of a script, read as the
// kernel does: a path and, after blanks, everything else as one argument. The host
// starts the interpreter itself, because a run directory is often mounted with
// noexec.
func interpreter(head []byte) ([]string, error) {
	line, _, ended := strings.Cut(string(head[len(shebang):]), "\n")
	if !ended && len(head) == maxShebang {
		return nil, fmt.Errorf("its first line is too long; expected less than %d bytes", maxShebang)
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

// named puts the name of the plugin's file into an error of the start, in place of
// that of the copy.
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
		_ = os.RemoveAll(filepath.Dir(b.path)) // after a failure the next start removes it
	}
}
