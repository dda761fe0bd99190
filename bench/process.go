package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// nobody is the user that servers run as when root measures.
const nobody = 65534

// patience bounds the start and the end of a server.
const patience = time.Minute

// process is a server with all its children.
type process struct {
	cmd  *exec.Cmd
	log  string // path of what it wrote
	done chan struct{}
}

// launch starts a program, which writes to the file log.
func launch(log, name string, args ...string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &process{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Dir = filepath.Dir(log)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended tells its log
		close(p.done)
	}()
	return p, nil
}

// stop ends the process, by force if it does not end by itself.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// until waits until ready, of a server that is starting.
func (p *process) until(ready func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ready(); <-tick.C {
		select {
		case <-p.done:
			return p.fail("has ended")
		default:
		}
		if time.Now().After(deadline) {
			return p.fail("is not ready")
		}
	}
	return nil
}

func (p *process) fail(what string) error {
	text, err := os.ReadFile(p.log)
	return errors.Join(fmt.Errorf("%s %s:\n%s", p.cmd.Path, what, text[max(0, len(text)-2000):]), err)
}

// ticks is the unit of CPU time in /proc: Linux reports hundredths of a second
// on all processors that Go runs on.
const ticks = 100

// pid and its children, and theirs.
func tree(root int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		if f := statFields(path); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			children[parent] = append(children[parent], pid)
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// statFields returns what follows the name in a stat file, nothing of a process
// that has ended: [0] is the state, [1] the parent, [11] and [12] the time.
func statFields(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// cpu returns the seconds of CPU that a server and its children have used.
func (p *process) cpu() (float64, error) {
	pids, err := tree(p.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	sum := 0
	for _, pid := range pids {
		if f := statFields(fmt.Sprintf("/proc/%d/stat", pid)); len(f) > 12 {
			user, _ := strconv.Atoi(f[11])
			system, _ := strconv.Atoi(f[12])
			sum += user + system
		}
	}
	return float64(sum) / ticks, nil
}

// resident returns the resident memory of a server and of its children, in MiB.
func (p *process) resident() (own, children float64, err error) {
	pids, err := tree(p.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	for i, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), "VmRSS:")
		kib := 0.0
		if f := strings.Fields(rest); len(f) > 0 {
			kib, _ = strconv.ParseFloat(f[0], 64)
		}
		if i == 0 {
			own = kib / 1024
		} else {
			children += kib / 1024
		}
	}
	return own, children, nil
}

// ownCPU returns the seconds of CPU that the client, this process, has used.
func ownCPU() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for bad arguments only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
