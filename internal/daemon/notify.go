package daemon

import (
	"net"
	"strings"
	"time"
)

// What a service manager is told, by the protocol of sd_notify(3).
const (
	nowReady     = "READY=1"
	nowReloading = "RELOADING=1"
	nowStopping  = "STOPPING=1"
)

// notifier tells the service manager that started this process how far it is: lines in one datagram to the socket that the manager named. The zero
// value tells nobody. A start counts as done when READY was told, so that what waits for the service finds it listening.
type notifier struct {
	socket string // a path, or @ and an abstract name
}

func (n notifier) tell(lines ...string) error {
	if n.socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil { // a manager that does not read holds nobody up
		return err
	}
	_, err = conn.Write([]byte(strings.Join(lines, "\n")))
	return err
}

// tell says to the service manager, if there is one, what the service does now.
func (s *service) tell(lines ...string) {
	if err := s.manager.tell(lines...); err != nil {
		s.log.Warn("the service manager cannot be told", "what", lines[0], "socket", s.manager.socket, "err", err)
	}
}
