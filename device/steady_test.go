package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"
)

func answerOf(code tpm2.TPMRC) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(code))
}

// scripted answers with what the function says, and finds fault with a second
// command while one runs.
type scripted struct {
	t        *testing.T
	mu       sync.Mutex
	count    int
	commands [][]byte
	answer   func(n int) ([]byte, error)
}

func (s *scripted) Send(command []byte) ([]byte, error) {
	if !s.mu.TryLock() {
		s.t.Error("two commands at a time")
		return nil, errors.New("two at a time")
	}
	defer s.mu.Unlock()
	s.count++
	s.commands = append(s.commands, command)
	return s.answer(s.count)
}

func TestTPMThatIsBusyForEverIsGivenUp(t *testing.T) {
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting} {
		synctest.Test(t, func(t *testing.T) {
			tpm := &scripted{t: t, answer: func(int) ([]byte, error) { return answerOf(code), nil }}
			started := time.Now()
			_, err := tpm2.GetRandom{BytesRequested: 1}.Execute(Steady(tpm, time.Minute))
			if took := time.Since(started); !errors.Is(err, ErrBusy) || !errors.Is(err, code) || took > retryFor || took < retryFor/2 {
				t.Errorf("%v: after %v %v", code, took, err)
			}
			if tpm.count < 20 || tpm.count > 100 {
				t.Errorf("asked %d times", tpm.count)
			}
			var failure *TPMError
			if err := tpmError("TPM2_GetRandom", err); !errors.As(err, &failure) || failure.Code != code {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSelfTestOfSomeSecondsIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ready := time.Now().Add(15 * time.Second)
		tpm := &scripted{t: t, answer: func(int) ([]byte, error) {
			if time.Now().Before(ready) {
				return answerOf(tpm2.TPMRCTesting), nil
			}
			return answerOf(0), nil
		}}
		if _, err := Steady(tpm, time.Minute).Send(make([]byte, 10)); err != nil {
			t.Error(err)
		}
	})
}

// A TPM that stalls for half a minute is waited for; one that stalls for good
// holds nobody up, and its late answer is not taken for another command's.
func TestStalledTPM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall := make(map[int]time.Duration)
		tpm := &scripted{t: t, answer: func(n int) ([]byte, error) {
			time.Sleep(stall[n])
			return answerOf(tpm2.TPMRC(n)), nil
		}}
		s := steadied(tpm)
		stall[1], stall[2] = 30*time.Second, 10*time.Minute
		if response, err := s.Send(nil); err != nil || response[9] != 1 {
			t.Errorf("a stall of 30 s: %x, %v", response, err)
		}
		for _, words := range []string{"within", "earlier command"} {
			started := time.Now()
			_, err := s.Send(nil)
			if !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), words) || time.Since(started) > s.limit {
				t.Errorf("after %v %v", time.Since(started), err)
			}
		}
		time.Sleep(10 * time.Minute)
		if response, err := s.Send(nil); err != nil || response[9] != 3 {
			t.Errorf("when it is well again: %x, %v", response, err)
		}
	})
}

// A key that is made when nobody waits for it any more has no owner: it goes
// before the next command. A late answer to anything else is dropped.
func TestWhatALateAnswerBringsIsRemoved(t *testing.T) {
	command := func(code tpm2.TPMCC) []byte {
		return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(code))
	}
	for code, wanted := range map[tpm2.TPMCC]int{tpm2.TPMCCLoad: 3, tpm2.TPMCCStartAuthSession: 3, tpm2.TPMCCReadPublic: 2} {
		synctest.Test(t, func(t *testing.T) {
			tpm := &scripted{t: t, answer: func(n int) ([]byte, error) {
				if n == 1 {
					time.Sleep(10 * time.Minute)
				}
				return append(answerOf(0), 0x80, 0, 0, 7), nil
			}}
			s := steadied(tpm)
			if _, err := s.Send(command(code)); !errors.Is(err, ErrStalled) {
				t.Fatalf("got %v", err)
			}
			time.Sleep(10 * time.Minute)
			if _, err := s.Send(command(tpm2.TPMCCGetRandom)); err != nil {
				t.Error(err)
			}
			if tpm.count != wanted {
				t.Errorf("0x%x: %d commands, want %d", uint32(code), tpm.count, wanted)
			}
			flushing := command(tpm2.TPMCCFlushContext)
			flushing[5] = 14
			if flushing = append(flushing, 0x80, 0, 0, 7); wanted == 3 && !bytes.Equal(tpm.commands[1], flushing) {
				t.Errorf("0x%x: then %x", uint32(code), tpm.commands[1])
			}
		})
	}
}
