package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// environment says what the figures depend on.
func environment() (string, error) {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	model, err := field("/proc/cpuinfo", "model name")
	if err != nil {
		return "", err
	}
	memory, err := field("/proc/meminfo", "MemTotal")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d × %s, %s of memory, Linux %s, %s\n%s, %s", runtime.NumCPU(), model, memory,
		strings.TrimSpace(string(kernel)), runtime.Version(), version("nginx", "-v"), version("varnishd", "-V")), nil
}

// field returns the value of a line "name : value".
func field(path, name string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	_, after, _ := strings.Cut(string(b), name)
	_, value, _ := strings.Cut(after, ":")
	line, _, _ := strings.Cut(value, "\n")
	return strings.TrimSpace(line), nil
}

// version returns the first line of what a program says of itself. That it is
// there, [plan.stage] checks.
func version(name, flag string) string {
	out, err := exec.Command(name, flag).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s: %v", name, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// load returns the load average of the last minute.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}
