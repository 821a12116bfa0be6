package registration_test

import (
	"fmt"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// One whole registration in process: challenge, proof and poll through the core, the real store with its flush, and a hub in memory.
// The device's half is done beforehand: since keys, clock and chance are the test's, the challenge key that the device would find
// inside the blob is asked of the core, and the tokens are signed before the timer starts. Nothing of softtpm is measured, and the
// service does all of its work. Each iteration registers another device for the first time.
func BenchmarkRegistration(b *testing.B) {
	for _, alg := range softtpm.Algorithms {
		b.Run(string(alg), func(b *testing.B) {
			w := newWorld(b)
			proofs := w.benchDevices(b, alg, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for _, p := range proofs {
				p.run(b, w)
			}
		})
	}
}

// BenchmarkRegistrationParallel is the same from many devices at once: their transitions share commits.
func BenchmarkRegistrationParallel(b *testing.B) {
	w := newWorld(b)
	proofs := make(chan benchProof, b.N)
	for _, p := range w.benchDevices(b, softtpm.RSA, b.N) {
		proofs <- p
	}
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p := <-proofs
			p.run(b, w)
		}
	})
}

type benchProof struct{ first, proof, poll registration.Request }

func (w *world) benchDevices(b *testing.B, alg softtpm.Algorithm, n int) []benchProof {
	b.Helper()
	d := w.device("", alg, 0)
	proofs := make([]benchProof, n)
	for i := range proofs {
		d.id = fmt.Sprintf("device-%d", i)
		d.enroll("", nil)
		key := registration.ChallengeKey(w.core, scopeOne, d.id, d.chip.EK.Bytes(), d.chip.SRK.Bytes(), 0, w.clock.Now())
		token := d.token(key, time.Hour)
		proofs[i] = benchProof{d.request(""), d.request(token), d.request(token)}
	}
	return proofs
}

func (p benchProof) run(b *testing.B, w *world) {
	if answer, err := w.core.Register(w.ctx, p.first); err != nil || answer.Challenge == nil {
		b.Errorf("first contact: %+v, %v", answer, err)
		return
	}
	answer, err := w.core.Register(w.ctx, p.proof)
	if err != nil {
		b.Errorf("proof: %v", err)
		return
	}
	answer, err = w.core.Poll(w.ctx, p.poll, answer.Status.OperationID)
	if err != nil || answer.Status.RegistrationState.TPM == nil {
		b.Errorf("poll: %+v, %v", answer, err)
	}
}

// A token that verifies nowhere is tried against every group with symmetric keys: what a stranger can make the service do.
func BenchmarkTokenAgainstGroups(b *testing.B) {
	for _, groups := range []int{0, 10, 1000} {
		b.Run(fmt.Sprint(groups), func(b *testing.B) {
			w := newWorld(b)
			for i := range groups {
				if _, err := w.putGroup(fmt.Sprintf("group-%d", i), keysBody(firstKey, secondKey, ""), ""); err != nil {
					b.Fatal(err)
				}
			}
			k := w.keyed("stranger", thirdKey)
			request := k.request(k.token(time.Hour))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.core.Register(w.ctx, request); err == nil {
					b.Fatal("a stranger was let in")
				}
			}
		})
	}
}
