package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Timetable says when something is due.
type Timetable interface {
	// Next returns the first moment after t; the zero time if there is none.
	Next(t time.Time) time.Time
	// String returns the timetable as it is configured.
	String() string
}

// Every returns a timetable of intervals: the next run is due d after the last.
func Every(d time.Duration) Timetable { return interval(d) }

type interval time.Duration

func (i interval) Next(t time.Time) time.Time { return t.Add(time.Duration(i)) }

// String leaves out the zeros at the end that Duration has.
func (i interval) String() string {
	s := time.Duration(i).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return "every " + s
}

// cronParser reads the five fields of crontab(5), and words such as @daily.
var cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// Cron returns the timetable of five fields as in crontab(5): minute, hour,
// day of the month, month, day of the week (0 to 6 from Sunday, or names), or
// of a word such as @daily. The fields are in the time zone of the moment that
// is passed to [Timetable.Next].
//
// When the clock is put forward, what was due in the time that it skips is
// due at once. When it is put back, what was due in the time that comes twice
// is due the first time only. A timetable for every hour follows the hours
// that pass instead.
func Cron(spec string) (Timetable, error) {
	switch {
	case strings.Contains(spec, "TZ="):
		return nil, errors.New("a time zone cannot be set here; the times are in the time zone of the service")
	case strings.HasPrefix(spec, "@every"):
		return nil, errors.New(`for an interval, write every = "5m" instead`)
	}
	parsed, err := cronParser.Parse(spec)
	if err != nil {
		return nil, fmt.Errorf(`expected minute, hour, day, month and weekday, such as "30 2 * * *" for half past two each night: %w`, err)
	}
	fields, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("%q has no fields", spec)
	}
	t := table{spec: strings.Join(strings.Fields(spec), " "), fields: fields, hourly: fields.Hour&everyHour != 0}
	if t.Next(leapYear).IsZero() {
		return nil, errors.New("this never happens: none of the months has that day")
	}
	return t, nil
}

// everyHour is the bit that the parser sets for a field that is a star.
const everyHour = 1 << 63

// leapYear begins four years that contain every date there is.
var leapYear = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// table is the timetable of cron fields.
type table struct {
	spec   string
	fields *cron.SpecSchedule
	hourly bool // counts hours that pass, whatever the clock on the wall does
}

func (c table) String() string { return c.spec }

// Next handles each stretch between two changes of the clock by itself. Within
// a stretch the clock on the wall simply counts up. What the parser's library
// does at a change depends on the hour of the change.
func (c table) Next(t time.Time) time.Time {
	loc := t.Location()
	for stretch := t; ; {
		_, offset := stretch.Zone()
		_, end := stretch.ZoneBounds()
		if !end.IsZero() && !end.After(stretch) {
			end = stretch.AddDate(0, 0, 1) // time is wrong on the last day of a leap year after 2037
		}
		next := c.fields.Next(t.In(time.FixedZone("", offset))).In(loc)
		switch {
		case next.IsZero():
			return time.Time{}
		case end.IsZero() || next.Before(end):
			if c.hourly || !repeated(next) {
				return next
			}
			t = next
			continue
		}
		_, after := end.Zone()
		if skipped := time.Duration(after-offset) * time.Second; !c.hourly && next.Before(end.Add(skipped)) {
			return end
		}
		t, stretch = end.Add(-time.Nanosecond), end
	}
}

// repeated reports whether the clock shows t for the second time.
func repeated(t time.Time) bool {
	start, _ := t.ZoneBounds()
	if start.IsZero() {
		return false
	}
	_, before := start.Add(-time.Nanosecond).Zone()
	_, now := t.Zone()
	return t.Before(start.Add(time.Duration(before-now) * time.Second))
}
