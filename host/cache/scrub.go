package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/store"
	"golang.org/x/time/rate"
)

// ScrubReport says what a scrub found. It does not count images that were evicted,
// deleted or replaced meanwhile.
type ScrubReport struct {
	Images  int       `json:"images"`  // number of correct images
	Adopted int       `json:"adopted"` // of these, the number that got a block table only now
	Bytes   int64     `json:"bytes"`   // number of bytes that were read
	Bad     []Finding `json:"bad"`     // images whose file is in invalid/ now
	Unread  []Finding `json:"unread"`  // images that could not be checked
}

// Finding says what is wrong with an image.
type Finding struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"` // as in [ImageInfo]
	Reason string `json:"reason"`
}

// ScrubProgress says how far a scrub is.
type ScrubProgress struct {
	ID         string    `json:"id"`     // of the image that is being read
	Images     int       `json:"images"` // number that are done
	Bytes      int64     `json:"bytes"`  // number that are done
	TotalBytes int64     `json:"total_bytes"`
	Total      int       `json:"total"` // number of images
	Bad        int       `json:"bad"`
	Started    time.Time `json:"started"`
}

// scrubs is what the scrubs of a cache share.
type scrubs struct {
	rate *rate.Limiter // of all together; nil: no bound

	mu      sync.Mutex
	running *ScrubProgress // of the scrub of the whole cache; nil: none is running
}

func newScrubs(cfg Config) *scrubs {
	s := &scrubs{}
	if cfg.Scrub.Bandwidth > 0 {
		s.rate = rate.NewLimiter(rate.Limit(cfg.Scrub.Bandwidth), blockSize)
	}
	return s
}

// progress returns how far the scrub of the whole cache is, or nil.
func (s *scrubs) progress() *ScrubProgress {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return nil
	}
	p := *s.running
	return &p
}

// Scrub reads every cached image. It begins with the image that was not checked for
// longest, and so continues where an earlier scrub was stopped. See [Cache.Verify].
func (c *Cache) Scrub(ctx context.Context) (ScrubReport, error) {
	return c.Verify(ctx, nil, func(ScrubProgress) {})
}

// Verify reads all images, or those with the given ids, block by block within the
// bandwidth of scrubs, and checks them. A bad image is quarantined. An image
// without a block table, which another program has stored, is compared with the
// digest in its version or from its origin; if it does not differ, it gets a table.
// tell is called after each block.
//
// A bad image is not an error. If the context ends or the cache is closed, the
// report says what was found until then. The error wraps ErrNotFound if a named
// image is not cached, and ErrConflict if another call is reading all images
// already.
func (c *Cache) Verify(ctx context.Context, ids []string, tell func(ScrubProgress)) (ScrubReport, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(errStopped) })()
	select {
	case <-c.scanned:
	case <-ctx.Done():
		return ScrubReport{}, context.Cause(ctx)
	}
	s := &scrub{c: c, tell: tell, at: ScrubProgress{Started: c.cfg.Now()}, report: ScrubReport{Bad: []Finding{}, Unread: []Finding{}}}
	images, err := s.choose(ids)
	if err != nil {
		return ScrubReport{}, err
	}
	if len(ids) == 0 {
		if err := s.enter(); err != nil {
			return ScrubReport{}, err
		}
		defer s.leave()
	}
	for _, im := range images {
		s.at.ID = im.ID
		done := s.at.Bytes
		if err := s.verify(ctx, im.ID); err != nil {
			return s.report, err
		}
		s.at.Images++
		s.advance(done + im.Size - s.at.Bytes)
	}
	c.log.Info("checked images", "right", s.report.Images, "adopted", s.report.Adopted, "bad", len(s.report.Bad),
		"unread", len(s.report.Unread), "bytes", s.report.Bytes, "duration", c.cfg.Now().Sub(s.at.Started))
	return s.report, nil
}

// scrub is one run. One goroutine uses it.
type scrub struct {
	c      *Cache
	tell   func(ScrubProgress)
	whole  bool // it reads the whole cache
	at     ScrubProgress
	report ScrubReport
}

// choose returns the images to read, beginning with the one that was not checked
// for longest.
func (s *scrub) choose(ids []string) ([]ImageInfo, error) {
	var images []ImageInfo
	for _, id := range ids {
		info, err := s.c.Image(id)
		if err == nil && info.State != StateCached {
			err = fmt.Errorf("image %q is not cached: %w", id, ErrNotFound)
		}
		if err != nil {
			return nil, err
		}
		images = append(images, info)
	}
	if len(ids) == 0 {
		images = s.c.Images()
	}
	checked := make(map[string]time.Time, len(images))
	for _, im := range images {
		checked[im.ID] = s.c.store.Checked(im.ID)
		s.at.TotalBytes += im.Size
	}
	s.at.Total = len(images)
	slices.SortStableFunc(images, func(a, b ImageInfo) int { return checked[a.ID].Compare(checked[b.ID]) })
	return images, nil
}

// enter makes the scrub the only one of the whole cache.
func (s *scrub) enter() error {
	s.c.scrubs.mu.Lock()
	defer s.c.scrubs.mu.Unlock()
	if p := s.c.scrubs.running; p != nil {
		return fmt.Errorf("%w: a scrub is running, and has read %d of %d images", ErrConflict, p.Images, p.Total)
	}
	s.whole = true
	at := s.at
	s.c.scrubs.running = &at
	return nil
}

func (s *scrub) leave() {
	s.c.scrubs.mu.Lock()
	defer s.c.scrubs.mu.Unlock()
	s.c.scrubs.running = nil
}

// advance says that n bytes more are done.
func (s *scrub) advance(n int64) {
	s.at.Bytes += n
	s.at.Bad = len(s.report.Bad)
	if s.whole {
		s.c.scrubs.mu.Lock()
		*s.c.scrubs.running = s.at
		s.c.scrubs.mu.Unlock()
	}
	s.tell(s.at)
}

// leftAloneFor is how long a file without a block table must not have been changed
// before it is checked: somebody may still be copying it into the cache.
const leftAloneFor = time.Minute

// verify reads one image. The error is that of the context.
func (s *scrub) verify(ctx context.Context, id string) error {
	file, err := s.c.store.OpenImage(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, store.ErrCorrupt):
		_ = s.c.quarantineUnopened(id, err) // the error says only that the image is gone
		s.report.Bad = append(s.report.Bad, Finding{id, s.c.nameOf(id, ""), err.Error()})
		return nil
	case err != nil:
		s.unread(id, err)
		return nil
	}
	defer file.Close()
	info := file.Info()
	if !info.Verified && s.c.age(info.ModTime) < leftAloneFor {
		s.unread(id, errors.New("the file was changed less than a minute ago and may not be complete yet"))
		return nil
	}
	im := s.c.index.Found(info)
	if im == nil {
		return nil
	}
	s.c.index.Hold(im)
	defer s.c.index.Unhold(im)
	a, err := s.c.appraise(ctx, file, s.c.index.View(im).File.Version)
	if err != nil {
		return err
	}
	if whole, err := s.read(ctx, file, im, a); err != nil || !whole {
		return err
	}
	if err := a.verdict(); err != nil {
		s.bad(im, err)
		return nil
	}
	after, err := file.Vouch(a.meta(file), &a.sums)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		s.unread(id, err)
		return nil
	}
	s.c.index.Enrich(im, after)
	s.report.Images++
	if !info.Verified {
		s.report.Adopted++
	}
	return nil
}

// read reads the blocks of an image and gives them to a. It reports whether all of
// them were correct and the image is still cached.
func (s *scrub) read(ctx context.Context, file *store.Image, im *index.Image, a *appraisal) (bool, error) {
	buf := blocks.get()
	defer blocks.put(buf)
	for n := int64(0); ; n++ {
		if err := s.pause(ctx, min(blockSize, im.Size-n*blockSize)); err != nil {
			return false, err
		}
		removed, idle := s.c.index.Idle(im, s.c.cfg.Now())
		if removed {
			return false, nil // closing the file frees its space
		}
		block, err := file.ReadBlock(n, buf)
		switch {
		case errors.Is(err, io.EOF):
			return true, nil
		case err != nil:
			s.bad(im, err)
			return false, nil
		}
		a.write(block)
		if idle {
			file.Forget(n) // the page cache is for images that clients read
		}
		s.report.Bytes += int64(len(block))
		s.advance(int64(len(block)))
	}
}

// pause waits until n bytes more may be read.
func (s *scrub) pause(ctx context.Context, n int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.c.scrubs.rate == nil || n <= 0 {
		return nil
	}
	if err := s.c.scrubs.rate.WaitN(ctx, int(n)); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("wait for the bandwidth for %d bytes: %w", n, err)
	}
	return nil
}

func (s *scrub) bad(im *index.Image, why error) {
	if s.c.quarantine(im, why) { // otherwise it had left the cache already
		s.report.Bad = append(s.report.Bad, Finding{im.ID, s.c.nameOf(im.ID, s.c.index.View(im).File.Name), why.Error()})
	}
}

func (s *scrub) unread(id string, why error) {
	s.c.log.Warn("an image could not be checked", "image", id, "error", why)
	s.report.Unread = append(s.report.Unread, Finding{id, s.c.nameOf(id, ""), strings.TrimSpace(why.Error())})
}
