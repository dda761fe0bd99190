package simulate

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain is also the child that the watchdog starts, when its first argument
// is one of children.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "child" {
		children[os.Args[2]]()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childLimit is what the children are watched with.
const childLimit = 200 * time.Millisecond

// children are programs that behave in one way each.
var children = map[string]func(){
	"ends": func() {},
	"ends with 7": func() {
		alive, _ := Watched(childLimit)
		alive()
		os.Exit(7)
	},
	"knows that it is watched": func() {
		if _, yes := Watched(childLimit); !yes {
			os.Exit(1)
		}
	},
	"hangs": func() {
		alive, _ := Watched(childLimit)
		alive()
		for n := 0; ; n++ { // as a module without an end
		}
	},
	"goes on": func() {
		alive, _ := Watched(childLimit)
		for {
			alive()
		}
	},
}

// TestWatch: a child ends as it likes, with its own exit code, and is killed when
// it shows nothing any more.
func TestWatch(t *testing.T) {
	for name, want := range map[string]error{
		"ends": nil, "ends with 7": Exited(7), "knows that it is watched": nil,
	} {
		t.Run(name, func(t *testing.T) {
			if err := Watch(t.Context(), []string{"watched", "child", name}, time.Minute); !errors.Is(err, want) {
				t.Errorf("Watch() = %v, want %v", err, want)
			}
		})
	}
	err := Watch(t.Context(), []string{"watched", "child", "hangs"}, childLimit)
	if err == nil || !strings.Contains(err.Error(), "for 200ms") {
		t.Errorf("a child that hangs: %v, want the limit", err)
	}
	if alive, yes := Watched(childLimit); yes {
		t.Error("this process is taken for a child")
	} else {
		alive()
	}
}

// TestWatchEndsWithContext, also before the child has got anywhere.
func TestWatchEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if err := Watch(ctx, []string{"watched", "child", "goes on"}, time.Minute); !errors.Is(err, enough) {
		t.Errorf("Watch() = %v, want %v", err, enough)
	}
}
