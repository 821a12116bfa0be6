package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/softtpm"
)

// modulusSize of an RSA-2048 key, in bytes. It is the end of its TPM2B_PUBLIC.
const modulusSize = 256

// writeRows writes one line for each row, with the registration id left to the service, which derives it from the EK.
func writeRows(w io.Writer, rows int, seed uint64) error {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	random := rand.NewChaCha8(key)
	ek := softtpm.New(softtpm.RSA, 0).EK.Bytes()
	modulus := ek[len(ek)-modulusSize:]
	out := bufio.NewWriterSize(w, 64<<10)
	for row := range rows {
		if _, err := random.Read(modulus); err != nil {
			return err
		}
		modulus[0] |= 0x80
		modulus[modulusSize-1] |= 1
		if row == 0 {
			if _, err := attest.ParseEK(ek); err != nil {
				return fmt.Errorf("the made-up endorsement key: %w", err)
			}
		}
		if _, err := fmt.Fprintf(out, `{"endorsementKey":"%s"}`+"\n", base64.StdEncoding.EncodeToString(ek)); err != nil {
			return err
		}
	}
	return out.Flush()
}

// importRows feeds them to `latchkey enroll import -` and gives what it said.
func importRows(ctx context.Context, s *rig.Service, rows int, seed uint64) (string, error) {
	read, write := io.Pipe()
	go func() { write.CloseWithError(writeRows(write, rows, seed)) }()
	result, err := s.LatchkeyReading(ctx, read, "enroll", "import", "-")
	read.CloseWithError(io.ErrClosedPipe)
	return strings.TrimSpace(result.Stdout), err
}
