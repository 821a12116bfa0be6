package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

var (
	// ErrBusy says that the TPM kept asking for a command to be sent again:
	// another program keeps it busy, or it is testing itself.
	ErrBusy = errors.New("the TPM is busy")

	// ErrStalled says that the TPM has not answered a command in time, and
	// takes no other before it does. Once it has answered it can be used again.
	ErrStalled = errors.New("the TPM does not answer")
)

// How long a TPM that asks for a command again is asked. Tests of its own take
// some TPMs seconds.
const (
	retryFirst = 2 * time.Millisecond
	retryLast  = 500 * time.Millisecond
	retryFor   = 20 * time.Second
)

// steady is one command at a time, sent again if the TPM asks for that, and a
// caller that is not held up by a TPM that is not heard of again.
type steady struct {
	mu    sync.Mutex
	tpm   transport.TPM
	limit time.Duration  // for one command
	late  chan sentReply // of a command given up; nil if there is none
}

type sentReply struct {
	command  []byte
	response []byte
	err      error
}

// Steady makes a transport that is safe for several goroutines, sends a command
// again while the TPM says that it has not begun it (ErrBusy after 20 seconds),
// and gives up waiting for an answer after limit (ErrStalled). An Identity does
// so by itself, with a limit of some minutes.
func Steady(tpm transport.TPM, limit time.Duration) transport.TPM {
	return &steady{tpm: tpm, limit: limit}
}

// steadied is for an Identity. Its limit is above those that transports of this
// package have themselves.
func steadied(tpm transport.TPM) *steady {
	if s, is := tpm.(*steady); is {
		return s
	}
	return &steady{tpm: tpm, limit: commandTimeout + 10*time.Second}
}

// Send sends a command until the TPM takes it: TPM_RC_RETRY, YIELDED and
// TESTING say that it has not begun (TPM 2.0 Part 2, 6.6.3).
func (s *steady) Send(command []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	started := time.Now()
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		response, err := s.sendOnce(command)
		if err != nil {
			return nil, err
		}
		code, again := unbegun(response)
		switch {
		case !again:
			return response, nil
		case time.Since(started)+pause > retryFor:
			return nil, fmt.Errorf("%w: for %v it has asked to have the command sent again: %w", ErrBusy, retryFor, code)
		}
		time.Sleep(pause)
	}
}

// sendOnce waits for one answer. A command that was sent cannot be taken back,
// so an answer that comes too late is still waited for before the next command:
// else it would be taken for the next one's.
func (s *steady) sendOnce(command []byte) ([]byte, error) {
	limit := time.NewTimer(s.limit)
	defer limit.Stop()
	if s.late != nil {
		select {
		case r := <-s.late:
			s.late = nil
			if remove := r.leftover(); remove != nil {
				if _, err := s.sendOnce(remove); err != nil {
					return nil, err
				}
			}
		case <-limit.C:
			return nil, fmt.Errorf("%w to an earlier command, for another %v", ErrStalled, s.limit)
		}
	}
	reply := make(chan sentReply, 1)
	go func() {
		response, err := s.tpm.Send(command)
		reply <- sentReply{command, response, err}
	}()
	select {
	case r := <-reply:
		return r.response, r.err
	case <-limit.C:
		s.late = reply
		return nil, fmt.Errorf("%w within %v", ErrStalled, s.limit)
	}
}

func unbegun(response []byte) (code tpm2.TPMRC, again bool) {
	if len(response) < responseHeader {
		return 0, false
	}
	code = tpm2.TPMRC(binary.BigEndian.Uint32(response[6:]))
	return code, code == tpm2.TPMRCRetry || code == tpm2.TPMRCYielded || code == tpm2.TPMRCTesting
}

// leftover is the command that removes what a command has made in the TPM whose
// answer came when nobody waited for it any more, so that nobody knows it.
func (r sentReply) leftover() []byte {
	const handleEnd = responseHeader + 4
	if r.err != nil || len(r.command) < responseHeader || len(r.response) < handleEnd || binary.BigEndian.Uint32(r.response[6:]) != 0 {
		return nil
	}
	switch tpm2.TPMCC(binary.BigEndian.Uint32(r.command[6:])) {
	case tpm2.TPMCCCreatePrimary, tpm2.TPMCCLoad, tpm2.TPMCCLoadExternal, tpm2.TPMCCContextLoad,
		tpm2.TPMCCStartAuthSession, tpm2.TPMCCHMACStart:
	default:
		return nil
	}
	const size = responseHeader + 4
	remove := []byte{0x80, 0x01, 0, 0, 0, size}
	remove = binary.BigEndian.AppendUint32(remove, uint32(tpm2.TPMCCFlushContext))
	return append(remove, r.response[responseHeader:handleEnd]...)
}
