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

// ParseReattach reads which plugins run already, by their names. The empty text
// is none. Errors wrap sdk.ErrInvalid.
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
			return nil, fmt.Errorf("%w: %s: %s speaks version %d of the contract, this host version %d", sdk.ErrInvalid, ReattachEnv, name, r.ProtocolVersion, sdk.Protocol)
		}
	}
	return list, nil
}

// unhurried is the deadline of a call to a plugin that somebody debugs: it may
// stand at a breakpoint over night.
const unhurried = 24 * time.Hour

// limit is the deadline of a call that has this one otherwise.
func (s Spec) limit(usual time.Duration) time.Duration {
	if s.Reattach != nil {
		return unhurried
	}
	return usual
}

// attach makes a process that somebody has started a process of the plugin, and
// asks what it is. There are no sums of its bytes and no walls around it, and
// nothing ends it.
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
	over    chan struct{} // closed when it has ended, or we have let go of it
	letGo   chan struct{}
	letOnce sync.Once
}

// errStrangerEnded says what to do.
var errStrangerEnded = errors.New("the process in " + ReattachEnv + " has ended: " +
	"start it again with --debug, and the service with what it prints")

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

// await returns when the process has ended, or nobody minds any more.
func (s *stranger) await(fd int) {
	defer close(s.over)
	defer unix.Close(fd)
	const look = 100 // milliseconds until we see that we have let go
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

// kill lets go of the process, which is not ours to kill.
func (s *stranger) kill() error {
	s.letOnce.Do(func() { close(s.letGo) })
	return nil
}
