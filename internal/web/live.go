package web

import "context"

// LivePlaces is how many live streams a process has at once: answers that go on until somebody ends them. They leave the places of other streams alone.
const LivePlaces = 32

// Flush sends what was written so far.
func (s *Stream) Flush() error {
	if err := s.out.Flush(); err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil {
		return ErrGone
	}
	return nil
}

// alive is the context of a live stream: it ends when the client hangs up, and when the service drains.
func (s *Server) alive(call Call) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(call.Context())
	stop := context.AfterFunc(s.shared.ending, cancel)
	return ctx, func() { stop(); cancel() }
}
