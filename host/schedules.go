package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/schedule"
)

// upkeep is the work of the engine that a schedule can do.
type upkeep interface {
	Prune(ctx context.Context, o cache.PruneOptions) (cache.Result, error)
	Clean(ctx context.Context, stall *time.Duration) (cache.Result, error)
	Queue(id string) (bool, error)
	RetryQueued() (int, error)
	Scrub(ctx context.Context) (cache.ScrubReport, error)
}

// newSchedules makes the schedules of the configuration. Find returns the id of
// the image that a person means. The last runs are not stored in the cache
// directory, which may be bad or not mounted.
func newSchedules(cfg *config.Config, u upkeep, find func(string) (string, error), log *slog.Logger) *schedule.Scheduler {
	c := schedule.Config{State: filepath.Join(cfg.Node.DataDir, "schedules"), Log: log}
	for _, s := range cfg.Schedules {
		one := schedule.Schedule{Name: s.Name, When: s.Timetable(), Jitter: s.Jitter}
		for _, task := range s.Run {
			one.Steps = append(one.Steps, schedule.Step{Name: string(task), Do: work(u, task, s.Images, find)})
		}
		c.Schedules = append(c.Schedules, one)
	}
	return schedule.New(c)
}

// work returns what a task does.
func work(u upkeep, task config.Task, images []string, find func(string) (string, error)) func(context.Context) (string, error) {
	switch task {
	case config.TaskPrune:
		return func(ctx context.Context) (string, error) {
			r, err := u.Prune(ctx, cache.PruneOptions{})
			return removed(r), err
		}
	case config.TaskClean:
		return func(ctx context.Context) (string, error) {
			r, err := u.Clean(ctx, nil)
			return removed(r), err
		}
	case config.TaskScrub:
		return func(ctx context.Context) (string, error) {
			r, err := u.Scrub(ctx)
			return scrubbed(r), err
		}
	default: // config.TaskPrefetch
		return func(context.Context) (string, error) { return prefetch(u, images, find) }
	}
}

// scrubbed says what a scrub found. The log and the history of each image say
// which images are bad, and why.
func scrubbed(r cache.ScrubReport) string {
	return fmt.Sprintf("%d right, %d bad, %d not readable, %s read", r.Images, len(r.Bad), len(r.Unread), humanize.IBytes(uint64(r.Bytes)))
}

func removed(r cache.Result) string {
	return fmt.Sprintf("%d files removed, %s", r.Files, humanize.IBytes(uint64(r.Bytes)))
}

// prefetch queues images, or retries the queued images.
func prefetch(u upkeep, images []string, find func(string) (string, error)) (string, error) {
	if len(images) == 0 {
		n, err := u.RetryQueued()
		return fmt.Sprintf("%d in the queue", n), err
	}
	queued, failed := 0, []error(nil)
	for _, image := range images {
		id, err := find(image)
		fresh := false
		if err == nil {
			fresh, err = u.Queue(id)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", image, err))
		}
		if fresh {
			queued++
		}
	}
	return fmt.Sprintf("%d of %d queued", queued, len(images)), errors.Join(failed...)
}
