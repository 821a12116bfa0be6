package main

import (
	"context"
	"fmt"
	"time"
)

// restartPause is what a service manager would wait (RestartSec).
const restartPause = 5 * time.Second

// part is a process that can be started again.
type part interface {
	Done() <-chan struct{} // closed when it has ended
	Kill() error           // also takes note of an end that came by itself
	Run() error
	PID() int
}

// keep starts a part again whenever it has ended, some time after that.
func (s *setup) keep(ctx context.Context, name string, p part) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
		}
		s.say.line("%s has ended, and is started again in %v", name, restartPause)
		_ = p.Kill() // says that it had ended
		for ended := true; ended; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(restartPause):
			}
			if err := p.Run(); err != nil {
				s.say.line("%s does not start, tried again in %v: %v", name, restartPause, err)
				continue
			}
			ended = false
			s.say.line("%s is back, pid %s", name, fmt.Sprint(p.PID()))
		}
	}
}
