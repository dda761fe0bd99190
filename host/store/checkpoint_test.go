package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

const blocks3half = 3*store.BlockSize + store.BlockSize/2

// interrupted leaves a partial file with a checkpoint, as a killed program
// does, and returns its bytes and its name.
func interrupted(t *testing.T, dir string) (data []byte, name string) {
	t.Helper()
	s := openQuick(t, dir)
	data = random(1, 4*store.BlockSize)
	st, err := s.Stage("a")
	if err != nil {
		t.Fatal(err)
	}
	half := data[:blocks3half]
	if _, err := st.Write(half[:store.BlockSize+5]); err != nil {
		t.Fatal(err)
	}
	if err := st.Checkpoint([]byte("label")); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(half[store.BlockSize+5:]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.Release(), s.Close()); err != nil {
		t.Fatal(err)
	}
	return data, names(t, dir, "incomplete")[0]
}

// unfinished recovers and returns the partial file that can be resumed.
func unfinished(t *testing.T, s *store.Store, want int) []store.Unfinished {
	t.Helper()
	report, err := s.Recover()
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Unfinished) != want {
		t.Fatalf("%d partial files can be resumed, want %d: %+v", len(report.Unfinished), want, report)
	}
	return report.Unfinished
}

func TestResume(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(partial, checkpoint string) error
		blocks int // that can still be trusted; 0: nothing to resume
	}{
		{"nothing", func(string, string) error { return nil }, 3},
		{"a wrong byte", func(p, _ string) error { return poke(p, store.BlockSize+7) }, 1},
		{"bytes are missing", func(p, _ string) error { return os.Truncate(p, 2*store.BlockSize+9) }, 2},
		{"a checksum is missing", func(_, c string) error { return os.Truncate(c, 25+8+3) }, 2},
		{"every checksum is missing", func(_, c string) error { return os.Truncate(c, 25) }, 0},
		{"the label is damaged", func(_, c string) error { return poke(c, 17) }, 0},
		{"the checkpoint is gone", func(_, c string) error { return os.Remove(c) }, 0},
		{"the partial file is gone", func(p, _ string) error { return os.Remove(p) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := storetest.MemoryDir(t)
			data, name := interrupted(t, dir)
			if err := tt.damage(filepath.Join(dir, "incomplete", name), filepath.Join(dir, ".imgcache/fills", name)); err != nil {
				t.Fatal(err)
			}
			s := openQuick(t, dir)
			list := unfinished(t, s, min(tt.blocks, 1))
			if tt.blocks == 0 {
				if left := append(names(t, dir, "incomplete"), names(t, dir, ".imgcache/fills")...); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				return
			}
			if u := list[0]; u.ID != "a" || u.Name != name || string(u.Label) != "label" {
				t.Errorf("recovered %+v", u)
			}
			var got bytes.Buffer
			st, err := s.Resume(name, func(p []byte) error { got.Write(p); return nil })
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), data[:tt.blocks*store.BlockSize]) || st.Size() != int64(got.Len()) {
				t.Fatalf("resumed %d bytes, of size %d, want %d blocks", got.Len(), st.Size(), tt.blocks)
			}
			if _, err := s.Resume(name, nil); err == nil {
				t.Error("resumed twice")
			}
			if _, err := st.Write(data[st.Size():]); err != nil {
				t.Fatal(err)
			}
			if _, _, err := st.Commit(store.Meta{}); err != nil {
				t.Fatal(err)
			}
			st.Release()
			if info := expect(t, s, "a", data); !info.Verified {
				t.Error("the image has no block table that fits")
			}
			if left := append(names(t, dir, "incomplete"), names(t, dir, ".imgcache/fills")...); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A transfer that is interrupted again and again keeps its checkpoint.
func TestResumeAgain(t *testing.T) {
	dir := storetest.MemoryDir(t)
	data, name := interrupted(t, dir)
	for range 2 {
		s := openQuick(t, dir)
		unfinished(t, s, 1)
		st, err := s.Resume(name, func([]byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Write(data[st.Size():blocks3half]); err != nil {
			t.Fatal(err)
		}
		if !st.Resumable() {
			t.Error("it can no longer be resumed")
		}
		if err := errors.Join(st.Release(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	s := openQuick(t, dir)
	unfinished(t, s, 1)
	if err := s.RemoveIncomplete(name); err != nil {
		t.Fatal(err)
	}
	if left := names(t, dir, ".imgcache/fills"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What can be resumed after a loss of power is a beginning of what was
// written, whatever reached the disk.
func TestResumeAfterPowerLoss(t *testing.T) {
	for keep := range 4 {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			dir := storetest.MemoryDir(t)
			fsys := storetest.New(t, dir)
			s, err := openFS(fsys)
			if err != nil {
				t.Fatal(err)
			}
			data := random(1, blocks3half)
			st, err := s.Stage("a")
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Checkpoint(nil); err != nil {
				t.Fatal(err)
			}
			for p := data; len(p) > 0; p = p[min(len(p), 300_000):] {
				if _, err := st.Write(p[:min(len(p), 300_000)]); err != nil {
					t.Fatal(err)
				}
			}
			if err := fsys.LosePower(keep); err != nil {
				t.Fatal(err)
			}
			s = openQuick(t, dir)
			report, err := s.Recover()
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range report.Unfinished {
				var got bytes.Buffer
				st, err := s.Resume(u.Name, func(p []byte) error { got.Write(p); return nil })
				if err != nil {
					t.Fatal(err)
				}
				defer st.Release()
				if !bytes.HasPrefix(data, got.Bytes()) {
					t.Errorf("resumed %d bytes that were never written", got.Len())
				}
			}
		})
	}
}

// A checkpoint that cannot be written costs the checkpoint alone.
func TestCheckpointFails(t *testing.T) {
	for _, op := range []string{"checkpoint", "checkpoint.write"} {
		dir := storetest.MemoryDir(t)
		fsys := storetest.New(t, dir)
		s, err := openFS(fsys)
		if err != nil {
			t.Fatal(err)
		}
		st, err := s.Stage("a")
		if err != nil {
			t.Fatal(err)
		}
		defer st.Release()
		fsys.Inject(storetest.On(op, 0, fs.ErrPermission))
		if err := st.Checkpoint(nil); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", op, err)
		}
		if st.Resumable() {
			t.Errorf("%s: it claims to be resumable", op)
		}
		if _, err := st.Write(newBytes); err != nil {
			t.Fatal(err)
		}
		if _, _, err := st.Commit(store.Meta{}); err != nil {
			t.Fatal(err)
		}
		fsys.Inject(nil)
		expect(t, s, "a", newBytes)
		if left := names(t, dir, ".imgcache/fills"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// poke changes a byte.
func poke(name string, at int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	return err
}
