package simulate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// A program that runs modules in its own process cannot end a module that has no
// loop and never returns: nothing interrupts its code, and the garbage collector may
// wait for it, and everything else in the process with it. So the program runs as a
// child of itself, which sends signs of life and is killed when they stop.
const (
	watchedEnv = "IMGCACHE_WATCHED" // set: this is the child
	watchedFD  = 3                  // where the child gives its signs
	// endTime is how long a child may take to end when it is asked to.
	endTime = 5 * time.Second
)

// Exited says that a child ended with an exit code other than 0. The child itself
// has said why.
type Exited int

func (e Exited) Error() string { return fmt.Sprintf("the child ended with the exit code %d", int(e)) }

// Watch runs this program again as a child, with the command line args, the name
// of the program first. After the first sign of life it kills the child when none
// comes for the limit. When the context ends the child is asked to end, and the
// error is that of the context. The error is an [Exited] when the child ended by
// itself with an error.
func Watch(ctx context.Context, args []string, limit time.Duration) error {
	signs, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer signs.Close()
	runtime.LockOSThread() // the kernel kills the child when the thread that started it ends
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), watchedEnv+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = signs.SetReadDeadline(time.Now().Add(endTime))
	})()
	late := lost(ctx, signs, limit)
	if late {
		_ = cmd.Process.Kill()
	}
	err = cmd.Wait()
	switch code := cmd.ProcessState.ExitCode(); {
	case code > 0:
		return Exited(code)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case late:
		return fmt.Errorf("a policy does not answer: no policy has finished a request for %v", limit)
	}
	return err
}

// lost reads signs of life to their end, and reports whether they stayed away
// before it.
func lost(ctx context.Context, signs *os.File, limit time.Duration) bool {
	for b := make([]byte, 64); ; {
		if _, err := signs.Read(b); err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
		if ctx.Err() == nil {
			_ = signs.SetReadDeadline(time.Now().Add(limit))
		}
	}
}

// Watched reports whether this process is a child that [Watch] has started with
// the limit. It returns the function that gives a sign of life, which any goroutine
// may call at any time.
func Watched(limit time.Duration) (alive func(), yes bool) {
	if os.Getenv(watchedEnv) == "" {
		return func() {}, false
	}
	signs := os.NewFile(watchedFD, "signs of life")
	var last atomic.Int64
	return func() {
		now, before := time.Now().UnixNano(), last.Load()
		if now-before > int64(limit/4) && last.CompareAndSwap(before, now) {
			_, _ = signs.Write([]byte{'.'})
		}
	}, true
}
