package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// DirectoryConfig says where an origin of files is. Name and Path are required.
type DirectoryConfig struct {
	Name   string
	Path   string
	Settle time.Duration // a file must not have been written to for so long; 0: no wait
	Terms  Terms         // RevalidateAfter is not used
}

// Directory is an origin whose images are the regular files of a directory. A name
// may lead into directories below it and through symbolic links that stay inside.
// The version is made of the file's device, inode, size and times of change. A file
// that is still being written is not an image yet; it counts as written when it has
// not changed for DirectoryConfig.Settle.
type Directory struct{ cfg DirectoryConfig }

// NewDirectory returns an origin of files. Each call opens the directory again, so
// it may be mounted or replaced at any time. While it is missing, the origin is
// unavailable, and no image is "not found".
func NewDirectory(cfg DirectoryConfig) *Directory {
	cfg.Terms.RevalidateAfter = 0
	return &Directory{cfg}
}

// Name implements [Origin].
func (d *Directory) Name() string { return d.cfg.Name }

// Terms implements [Origin]. Each hit asks the origin, since a stat takes only
// microseconds.
func (d *Directory) Terms() Terms { return d.cfg.Terms }

// Stat implements [Origin].
func (d *Directory) Stat(ctx context.Context, name string) (Object, error) {
	if err := context.Cause(ctx); err != nil {
		return Object{}, err
	}
	root, file, err := d.root(name)
	if err != nil {
		return Object{}, err
	}
	defer root.Close()
	fi, err := root.Stat(file)
	if err != nil {
		return Object{}, fileError(err)
	}
	return d.object(name, fi)
}

// Open implements [Origin].
func (d *Directory) Open(ctx context.Context, r Request) (Object, io.ReadCloser, error) {
	obj, err := d.Stat(ctx, r.Name) // before the open, since opening a device may have effects
	if err != nil {
		return Object{}, nil, err
	}
	f, err := d.open(r.Name)
	if err != nil {
		return Object{}, nil, err
	}
	fi, err := f.Stat()
	if err == nil {
		obj, err = d.object(r.Name, fi)
	}
	if err == nil && r.Version != "" {
		err = d.checkVersion(r, &obj)
	}
	if err == nil && r.Offset > obj.Size {
		err = fmt.Errorf("%w: %s has %d bytes, but the offset is %d", ErrUnavailable, r.Name, obj.Size, r.Offset)
	}
	if err != nil {
		f.Close()
		return Object{}, nil, err
	}
	end := obj.Size
	if r.Length >= 0 {
		end = r.Offset + r.Length
	}
	return obj, &fileBody{ctx: ctx, f: f, opened: fi, pos: r.Offset, end: end}, nil
}

// checkVersion compares a file with the version that was asked for. If they are
// the same, obj gets that version.
func (d *Directory) checkVersion(r Request, obj *Object) error {
	if r.join(obj.Validators(), d.cfg.Terms, false) != Same {
		return fmt.Errorf("%w: %s is %s now; expected %s", ErrChanged, r.Name, obj.Version, r.Version)
	}
	obj.Version = r.Version
	return nil
}

// root opens the directory and returns the name of the image's file in it.
func (d *Directory) root(name string) (root *os.Root, file string, err error) {
	if file, err = fileName(name); err != nil {
		return nil, "", err
	}
	root, err = os.OpenRoot(d.cfg.Path)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return root, file, nil
}

// open opens the file of an image. If the file was replaced by a FIFO, it does not
// wait for the other end.
func (d *Directory) open(name string) (*os.File, error) {
	root, file, err := d.root(name)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileError(err)
	}
	return f, nil
}

func (d *Directory) object(name string, fi fs.FileInfo) (Object, error) {
	if !fi.Mode().IsRegular() {
		return Object{}, fmt.Errorf("%w: %s is not a regular file", ErrNotFound, name)
	}
	file, err := fileName(name)
	if err != nil {
		return Object{}, err
	}
	u := url.URL{Scheme: "file", Path: filepath.Join(d.cfg.Path, file)}
	if err := d.settled(name, fi); err != nil {
		return Object{}, err
	}
	obj := Object{Size: fi.Size(), File: identity(fi), LastModified: fi.ModTime(), URL: u.String()}
	obj.Version = obj.Validators().version(d.cfg.Terms)
	return obj, nil
}

// settled returns an error for a file that was written to a moment ago.
func (d *Directory) settled(name string, fi fs.FileInfo) error {
	written, now := fi.ModTime(), time.Now()
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && written.After(now) { // somebody has set it
		written = time.Unix(st.Ctim.Unix())
	}
	age := now.Sub(written)
	if age < 0 || age >= d.cfg.Settle {
		return nil
	}
	return &Failure{
		RetryAfter: d.cfg.Settle - age,
		Temporary:  true,
		err: fmt.Errorf("%w: %s was written to %v ago and may still be growing; expected no change for %v: write it elsewhere and rename it when it is complete",
			ErrUnavailable, name, age.Round(time.Millisecond), d.cfg.Settle),
	}
}

// identity returns a text that identifies a file and its content. It is not made of
// size and modification time alone, because "cp -p" gives two files the same times.
func identity(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return "f" + hashText(fmt.Sprint(st.Dev, st.Ino, st.Ctim.Nano(), st.Size, st.Mtim.Nano()))
}

// fileError says what a failed operation on a file means. [os.Root] refuses a path
// that leaves the directory with an error that is not an errno. That counts as not
// found, so that nobody can learn what is outside.
func fileError(err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP),
		errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ENXIO), !errors.As(err, &errno):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// fileBody reads [pos, end) of a file. It returns io.EOF only if the file was not
// written to meanwhile. After an error it returns the same error again.
type fileBody struct {
	ctx      context.Context
	f        *os.File
	opened   fs.FileInfo
	pos, end int64
	err      error
}

func (b *fileBody) Read(p []byte) (int, error) {
	if b.err == nil {
		b.err = context.Cause(b.ctx)
	}
	if b.err == nil && b.pos >= b.end {
		if b.err = b.unchanged(); b.err == nil {
			b.err = io.EOF
		}
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.f.ReadAt(p[:min(int64(len(p)), b.end-b.pos)], b.pos)
	b.pos += int64(n)
	switch {
	case err == nil || n > 0 && errors.Is(err, io.EOF):
		return n, nil
	case errors.Is(err, io.EOF):
		if b.err = b.unchanged(); b.err == nil { // the request was for more bytes than there are
			b.err = fmt.Errorf("%w: %w", ErrUnavailable, io.ErrUnexpectedEOF)
		}
	default:
		b.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return n, b.err
}

func (b *fileBody) unchanged() error {
	fi, err := b.f.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if fi.Size() != b.opened.Size() || !fi.ModTime().Equal(b.opened.ModTime()) {
		return fmt.Errorf("%w: %s was written to while it was read", ErrChanged, filepath.Base(b.f.Name()))
	}
	return nil
}

func (b *fileBody) Close() error { return b.f.Close() }
