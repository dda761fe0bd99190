package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

// ReattachEnv is the environment variable that [ParseReattach] reads.
const ReattachEnv = serve.ReattachEnv

// ParseReattach reads, by name, which plugins are running already. An empty text
// means none. Errors wrap sdk.ErrInvalid.
func ParseReattach(text string) (map[string]serve.Reattach, error) {
	if text == "" {
		return nil, nil
	}
	var list map[string]serve.Reattach
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("%w: %s: %w: expected the line that a plugin prints when it is started with --debug", sdk.ErrInvalid, ReattachEnv, err)
	}
	for name, r := range list {
		switch {
		case r.Protocol != "grpc" || r.Addr.Network != "unix" || r.Addr.String == "" || r.Pid <= 0:
			return nil, fmt.Errorf("%w: %s: %s: expected the protocol grpc, the address of a unix socket, and a process id", sdk.ErrInvalid, ReattachEnv, name)
		case r.ProtocolVersion != sdk.Protocol:
			return nil, fmt.Errorf("%w: %s: %s speaks version %d of the contract; expected version %d", sdk.ErrInvalid, ReattachEnv, name, r.ProtocolVersion, sdk.Protocol)
		}
	}
	return list, nil
}

// unhurried is the time limit of a call to a plugin that is being debugged: it may
// stop at a breakpoint overnight.
const unhurried = 24 * time.Hour

// limit returns the time limit of a call: usual, or unhurried if the plugin is being
// debugged.
func (s Spec) limit(usual time.Duration) time.Duration {
	if s.Reattach != nil {
		return unhurried
	}
	return usual
}

// attach uses a process that somebody else has started as the process of the plugin,
// and asks what it is. Its bytes are not checked, it is not confined, and the host
// does not end it.
func (s *Supervisor) attach(ctx context.Context, spec Spec) (*process, error) {
	at := *spec.Reattach
	life, err := watchStranger(at.Pid)
	if err != nil {
		return nil, err
	}
	p := &process{
		bin: &binary{name: at.Addr.String}, child: life, pid: at.Pid, limit: spec.limit,
		said: newTranscript(s.cfg.Log.With("plugin", spec.label())), started: time.Now(),
	}
	p.conn, err = grpc.NewClient("unix:"+at.Addr.String, append(dialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err == nil {
		err = p.describe(ctx)
	}
	if err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// stranger is the life of a process that somebody else has started.
type stranger struct {
	over    chan struct{} // closed when it has ended or the host no longer uses it
	letGo   chan struct{} // closed when the host no longer uses it
	letOnce sync.Once
}

// errStrangerEnded says that the process has ended, and what to do.
var errStrangerEnded = errors.New("the process in " + ReattachEnv + " has ended: " +
	"start it again with --debug, and then the service with the line that it prints")

func watchStranger(pid int) (*stranger, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, errStrangerEnded
	}
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	s := &stranger{over: make(chan struct{}), letGo: make(chan struct{})}
	go s.await(fd)
	return s, nil
}

// await waits until the process has ended or is no longer used.
func (s *stranger) await(fd int) {
	defer close(s.over)
	defer unix.Close(fd)
	const look = 100 // milliseconds between two looks at letGo
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, look)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		select {
		case <-s.letGo:
			return
		default:
		}
	}
}

func (s *stranger) ended() <-chan struct{} { return s.over }

func (s *stranger) running() bool {
	select {
	case <-s.over:
		return false
	default:
		return true
	}
}

// end says how the process ended. It is valid when ended is closed.
func (s *stranger) end() error {
	select {
	case <-s.letGo:
		return errors.New("the service no longer uses it")
	default:
		return errStrangerEnded
	}
}

// kill ends the use of the process. It does not kill it, since somebody else has
// started it.
func (s *stranger) kill() error {
	s.letOnce.Do(func() { close(s.letGo) })
	return nil
}
