package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/device"
)

// tpmFlags say which TPM to use and how.
type tpmFlags struct {
	spec      string
	algorithm string
	transient bool
	verbose   bool
	auth      *authFlags
}

func addTPMFlags(cmd *cobra.Command) *tpmFlags {
	f := &tpmFlags{auth: addAuthFlags(cmd)}
	flags := cmd.Flags()
	flags.StringVar(&f.spec, "tpm", device.DefaultTPM, "device file, unix:PATH or swtpm:HOST:PORT (swtpm), tcp:HOST:PORT (simulator)")
	flags.StringVar(&f.algorithm, "algorithm", "",
		"kind of keys to insist on: rsa2048, ecc-p256 or rsa3072 (default: what is there, rsa2048 if nothing is)")
	flags.BoolVar(&f.transient, "transient", false,
		"create EK and SRK for this run only, instead of using the persistent ones")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "tell each step and how long it took")
	return f
}

func (f *tpmFlags) open(progress device.Progress) (*device.Identity, error) {
	auth, err := f.auth.read()
	if err != nil {
		return nil, err
	}
	defer auth.Wipe() // the Identity keeps a copy
	opts := []device.Option{device.WithProgress(progress), device.WithAuth(auth)}
	if f.transient {
		opts = append(opts, device.WithTransientKeys())
	}
	if f.algorithm != "" {
		algorithm, err := device.ParseAlgorithm(f.algorithm)
		if err != nil {
			return nil, usageError{err}
		}
		opts = append(opts, device.WithAlgorithm(algorithm))
	}
	id, err := device.Open(f.spec, opts...)
	if err != nil {
		return nil, tpmProblem{f.spec, err}
	}
	return id, nil
}

// progress prints steps to w, or nothing without --verbose.
func (f *tpmFlags) progress(w io.Writer) device.Progress {
	if !f.verbose {
		return nil
	}
	return func(e device.Event) {
		detail := e.Detail
		if e.Err != nil {
			detail = "failed: " + e.Err.Error()
		}
		fmt.Fprintf(w, "%-26s %8v  %s\n", e.Step, e.Took.Round(100*time.Microsecond), detail)
	}
}
