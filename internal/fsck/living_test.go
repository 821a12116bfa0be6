package fsck_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/registration"
)

// Devices go on registering while it looks: what moves between two readings is not a problem.
func TestALivingStoreHasNoProblems(t *testing.T) {
	h := newHouse(t)
	by := registration.Caller{Scope: h.scope, Policy: "owner"}
	h.soundWhile(30, func(ctx context.Context, i int) error {
		id := fmt.Sprint("dev-", i%20)
		wire, err := dps.DecodeEnrollment(id, []byte(`{"attestation":{"type":"symmetricKey"}}`))
		if err != nil {
			return err
		}
		made, err := h.core.PutEnrollment(ctx, by, wire, "")
		if err == nil {
			_, err = h.core.Register(ctx, h.request(id, made.Attestation.SymmetricKey.Primary))
		}
		if err == nil && i%20 == 19 {
			for j := range 20 {
				err = errors.Join(err, h.core.DeleteEnrollment(ctx, by, fmt.Sprint("dev-", j), ""))
			}
		}
		return err
	})
}

// Devices change their certificates, and get new keys, while their settled operations are pruned at once: what their hub holds is always what they
// were given last, with an operation or without.
func TestARolloverIsNoProblemThoughOperationsArePruned(t *testing.T) {
	h := newHouse(t)
	by := registration.Caller{Scope: h.scope, Policy: "owner"}
	const devices = 20
	var certificates [devices][2]*signer
	for i := range devices {
		certificates[i][0], certificates[i][1] = h.enrollCertified(fmt.Sprint("press-", i))
	}
	etags := map[string]string{}
	h.soundWhile(2*devices, func(ctx context.Context, i int) error {
		n, round := i%devices, i/devices
		if _, err := h.core.Register(ctx, h.shown(fmt.Sprint("press-", n), certificates[n][round%2])); err != nil {
			return err
		}
		id := fmt.Sprint("dev-", n)
		wire, err := dps.DecodeEnrollment(id, []byte(`{"attestation":{"type":"symmetricKey"}}`))
		if err != nil {
			return err
		}
		wire.Attestation.SymmetricKey = &dps.SymmetricKeys{Primary: newKey(i, 1), Secondary: newKey(i, 2)}
		made, err := h.core.PutEnrollment(ctx, by, wire, etags[id])
		if err != nil {
			return err
		}
		etags[id] = made.ETag
		if _, err = h.core.Register(ctx, h.request(id, made.Attestation.SymmetricKey.Primary)); err != nil {
			return err
		}
		_, err = h.store.Prune(ctx, time.Now().Add(time.Hour), time.Now().Add(-time.Hour), 1000)
		return err
	})
}

// A device that proves itself anew just between the readings of its registration and of its hub is read again.
func TestAProofBetweenTwoReadingsIsNoProblem(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{"its operation is kept": "", "its operation is pruned": "DELETE FROM operations"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			first, second := h.enrollCertified("saw")
			h.register(h.shown("saw", first))
			if before != "" {
				h.damage(before)
			}
			read := 0
			w := &watched{Store: h.store, device: func(id string) {
				if id != "saw" {
					return
				}
				if read++; read == 1 {
					h.register(h.shown("saw", second))
				}
			}}
			_, err := fsck.Check(t.Context(), w, h.ring, func(p fsck.Problem) { t.Error(p) })
			must(t, err)
			if read == 0 {
				t.Error("the device was not read")
			}
		})
	}
}

// newKey is a symmetric key that the other rounds do not have.
func newKey(round, slot int) []byte { return fmt.Appendf(nil, "%031d%d", round, slot) }

// soundWhile checks the store while move moves it, again and again: so many times, and until it has moved as often.
func (h *house) soundWhile(times int64, move func(ctx context.Context, i int) error) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	var moves atomic.Int64
	done := make(chan error, 1)
	go func() {
		var err error
		for ; err == nil && ctx.Err() == nil; moves.Add(1) {
			err = move(context.WithoutCancel(ctx), int(moves.Load()))
		}
		cancel()
		done <- err
	}()
	for n := int64(0); ctx.Err() == nil && min(n, moves.Load()) < times; n++ {
		if problems, _ := h.check(); len(problems) > 0 {
			h.t.Errorf("%q", problems)
			break
		}
	}
	cancel()
	must(h.t, <-done)
}
