package plugin

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// trust says which files may be run: those that only root, the host's user, or the
// owner of the host's own program can change. The directories of that program are not
// checked, since somebody who can change the program does not need a plugin.
type trust struct {
	owners []uint32
	own    map[string]bool // directories on the way to the host's program
}

func newTrust(executable string) trust {
	t := trust{owners: []uint32{0, uint32(os.Geteuid())}, own: map[string]bool{}}
	if real, err := filepath.EvalSymlinks(executable); err == nil {
		if info, err := os.Stat(real); err == nil {
			t.owners = append(t.owners, owner(info))
		}
		for dir := filepath.Dir(real); !t.own[dir]; dir = filepath.Dir(dir) {
			t.own[dir] = true
		}
	}
	return t
}

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// openTrusted opens a plugin's file. It refuses a file that other users can change or
// replace.
func (s *Supervisor) openTrusted(path string) (*os.File, error) {
	t := newTrust(s.cfg.Executable)
	real, err := t.resolve(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) // a pipe must not block
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", real)
	case info.Mode()&0o111 == 0 && !strings.HasSuffix(path, ".wasm"):
		err = fmt.Errorf("%s is not executable: chmod +x %s", real, real)
	default:
		err = t.check(real, info)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// resolve follows the symbolic links of a path to their end, and checks each
// link and each directory on the way.
func (t trust) resolve(path string) (string, error) {
	const maxLinks = 40 // the kernel's limit
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	todo, at := names(path), "/"
	for links := 0; len(todo) > 0; {
		next := filepath.Join(at, todo[0])
		todo = todo[1:]
		info, err := os.Lstat(next)
		if err != nil {
			return "", err
		}
		if len(todo) == 0 && info.Mode().Type() != fs.ModeSymlink {
			return next, nil // checked when it is open
		}
		if err := t.check(next, info); err != nil {
			return "", fmt.Errorf("on the way to %s: %w", path, err)
		}
		if info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		todo = append(names(target), todo...)
	}
	return at, nil
}

// names returns the elements of a path. An element ".." is kept: after a link it
// leaves the directory to which the link leads.
func names(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}

// check returns an error if others can change a file, link or directory. The error has
// the command that corrects that.
func (t trust) check(path string, info fs.FileInfo) error {
	what, mode := "the file", info.Mode()
	if mode.IsDir() {
		if what = "the directory"; t.own[path] {
			return nil
		}
	}
	if uid := owner(info); !slices.Contains(t.owners, uid) {
		return fmt.Errorf("%s %s belongs to the user %d, who could change what runs: chown -h %d %s, or run the service as that user",
			what, path, uid, os.Geteuid(), path)
	}
	// In a sticky directory, such as /tmp, only the owner of a file can replace it.
	if mode.Type() == fs.ModeSymlink || mode.IsDir() && mode&fs.ModeSticky != 0 || mode&0o022 == 0 {
		return nil
	}
	return fmt.Errorf("%s %s may be written by others (%v), who could change what runs: chmod go-w %s", what, path, mode, path)
}
