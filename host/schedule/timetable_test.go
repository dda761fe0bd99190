package schedule

import (
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones of these tests, wherever they run

	"github.com/google/go-cmp/cmp"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// upcoming returns the moments of a timetable after from and before to.
func upcoming(when Timetable, from, to time.Time) []string {
	var list []string
	for at := when.Next(from); at.Before(to); at = when.Next(at) {
		list = append(list, at.Format("02 15:04 MST"))
	}
	return list
}

// TestChangesOfTheClock runs timetables through the nights in which the clock
// is put forward and back.
func TestChangesOfTheClock(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, zone, spec string
		from             time.Time // in UTC; the test lasts 48 hours, or less
		hours            int
		want             string
	}{
		{"skipped", "Europe/Berlin", "30 2 * * *", time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC), 72, "28 02:30 CET, 29 03:00 CEST, 30 02:30 CEST"},
		{"twice", "Europe/Berlin", "30 2 * * *", time.Date(2026, 10, 24, 0, 0, 0, 0, time.UTC), 72, "24 02:30 CEST, 25 02:30 CEST, 26 02:30 CET"},
		{"at the very moment", "Europe/Berlin", "0 2,3 * * *", time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC), 24, "29 03:00 CEST"},
		{"the whole hour", "Europe/Berlin", "*/20 2 * * *", time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC), 24, "29 03:00 CEST"},
		{"hourly, forward", "Europe/Berlin", "30 * * * *", time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC), 3, "29 01:30 CET, 29 03:30 CEST, 29 04:30 CEST"},
		{"hourly, back", "Europe/Berlin", "30 * * * *", time.Date(2026, 10, 25, 0, 0, 0, 0, time.UTC), 3, "25 02:30 CEST, 25 02:30 CET, 25 03:30 CET"},
		{"@hourly", "Europe/Berlin", "@hourly", time.Date(2026, 10, 24, 23, 30, 0, 0, time.UTC), 3, "25 02:00 CEST, 25 02:00 CET, 25 03:00 CET"},
		{"midnight skipped", "America/Santiago", "@daily", time.Date(2026, 9, 5, 0, 0, 0, 0, time.UTC), 72, "05 00:00 -04, 06 01:00 -03, 07 00:00 -03"},
		{"midnight twice", "America/Havana", "15 0 * * *", time.Date(2026, 10, 31, 0, 0, 0, 0, time.UTC), 60, "31 00:15 CDT, 01 00:15 CDT, 02 00:15 CST"},
		{"half an hour", "Australia/Lord_Howe", "15 2 * * *", time.Date(2026, 10, 3, 0, 0, 0, 0, time.UTC), 48, "04 02:30 +11, 05 02:15 +11"},
		{"a zone without changes", "Asia/Kolkata", "30 2 * * *", time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC), 48, "29 02:30 IST, 30 02:30 IST"},
	} {
		when, err := Cron(test.spec)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got := strings.Join(upcoming(when, test.from.In(zone(t, test.zone)), test.from.Add(time.Duration(test.hours)*time.Hour)), ", ")
		if got != test.want {
			t.Errorf("%s: %s in %s\n got %s\nwant %s", test.name, test.spec, test.zone, got, test.want)
		}
	}
}

// TestAgainstEveryMinute compares a timetable with a walk through every minute
// of the days around each change of the clock in a year.
func TestAgainstEveryMinute(t *testing.T) {
	t.Parallel()
	when, err := Cron("*/7 0-3,23 * * 0,1,6")
	if err != nil {
		t.Fatal(err)
	}
	fits := func(wall time.Time) bool {
		return wall.Minute()%7 == 0 && slices.Contains([]int{0, 1, 2, 3, 23}, wall.Hour()) &&
			slices.Contains([]time.Weekday{0, 1, 6}, wall.Weekday())
	}
	for _, name := range []string{"Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Pacific/Auckland", "UTC"} {
		for _, change := range changes(time.Date(2018, 1, 1, 0, 0, 0, 0, zone(t, name))) {
			from, to := change.AddDate(0, 0, -2), change.AddDate(0, 0, 2)
			got, want := upcoming(when, from, to), minutes(fits, from, to)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, around %v: -want +got:\n%s", name, change, diff)
			}
		}
	}
}

// changes returns the moments of the year from start at which the clock is
// changed, and the start itself.
func changes(start time.Time) []time.Time {
	list := []time.Time{start}
	for _, end := start.ZoneBounds(); !end.IsZero() && end.Before(start.AddDate(1, 0, 0)); _, end = end.ZoneBounds() {
		list = append(list, end)
	}
	return list
}

// minutes walks from one moment to another and returns those at which the
// clock on the wall comes to, or jumps over, a minute that fits and that it
// has not shown before.
func minutes(fits func(wall time.Time) bool, from, to time.Time) []string {
	var list []string
	shown := wallOf(from) // the latest so far
	for at := from.Add(time.Minute); at.Before(to); at = at.Add(time.Minute) {
		due := false
		for now := wallOf(at); shown.Before(now); {
			shown = shown.Add(time.Minute)
			due = due || fits(shown)
		}
		if due {
			list = append(list, at.Format("02 15:04 MST"))
		}
	}
	return list
}

// wallOf is what the clock on the wall shows, in a zone that never changes.
func wallOf(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// TestLeapYear passes the end of a leap year far ahead, where package time
// does not know how long the zone lasts.
func TestLeapYear(t *testing.T) {
	t.Parallel()
	when, err := Cron("0 12 28-31 12 *")
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2040, 12, 30, 0, 0, 0, 0, zone(t, "Europe/Berlin"))
	got := strings.Join(upcoming(when, from, from.AddDate(0, 12, 0)), ", ")
	if want := "30 12:00 CET, 31 12:00 CET, 28 12:00 CET, 29 12:00 CET"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBadCron(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"":                        "expected minute, hour",
		"30 2 * *":                "expected minute, hour",
		"0 30 2 * * *":            "expected minute, hour",
		"60 2 * * *":              "above maximum (59)",
		"0 2 * * 7":               "above maximum (6)",
		"@nightly":                "unrecognized",
		"@every 5m":               `every = "5m"`,
		"TZ=Europe/Berlin @daily": "time zone of the service",
		"TZ=":                     "time zone of the service",
		"0 0 30 2 *":              "this never happens",
		", * * * *":               "this never happens",
	} {
		if when, err := Cron(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want an error with %q", spec, when, err, want)
		}
	}
}

func TestTimetablesPrintAsConfigured(t *testing.T) {
	t.Parallel()
	nightly, err := Cron(" 30  2 * * MON-FRI ")
	if err != nil {
		t.Fatal(err)
	}
	for when, want := range map[Timetable]string{
		nightly:                   "30 2 * * MON-FRI",
		Every(5 * time.Minute):    "every 5m",
		Every(24 * time.Hour):     "every 24h",
		Every(90 * time.Second):   "every 1m30s",
		Every(3610 * time.Second): "every 1h0m10s",
	} {
		if got := when.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// FuzzCron checks that no text panics, and that what is accepted goes on.
func FuzzCron(f *testing.F) {
	for _, spec := range []string{"30 2 * * *", "*/5 * * * *", "@weekly", "0 0 29 2 *", "TZ=", "1-5/2,9 ? JAN-MAR * sun"} {
		f.Add(spec, int64(1_774_742_400))
	}
	loc := zone(f, "Europe/Berlin")
	f.Fuzz(func(t *testing.T, spec string, second int64) {
		when, err := Cron(spec)
		if err != nil {
			return
		}
		from := time.Unix(second%4e9, 0).In(loc)
		for range 5 {
			next := when.Next(from)
			if next.IsZero() {
				return // a leap day that is more than five years off
			}
			if !next.After(from) {
				t.Fatalf("%q: %v follows %v", spec, next, from)
			}
			from = next
		}
	})
}
