package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"latchkey.example/latchkey/test/simtpm"
)

// flagsOf lists the flags of each subcommand.
func flagsOf(visit func(cmd *cobra.Command, f *pflag.Flag)) {
	for _, cmd := range command().Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { visit(cmd, f) })
	}
}

func TestEveryFlagTellsItsVariable(t *testing.T) {
	for _, cmd := range command().Commands() {
		help, _ := agent(t, exitOK, cmd.Name(), "--help")
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if want := "(LATCHKEY_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) + ")"; !strings.Contains(help, want) {
				t.Errorf("%s --%s: no %s in its help\n%s", cmd.Name(), f.Name, want, help)
			}
		})
	}
}

// Others can list a command line. These flags carry no secret; whoever adds one
// has to decide that anew. Arguments that are no flags are refused.
func TestNoFlagTakesASecret(t *testing.T) {
	want := []string{"algorithm", "all", "ca-file", "certificate", "connect", "deep", "eks", "endorsement-auth-file", "endpoint", "id-scope", "json",
		"lockout-auth-file", "offline", "owner-auth-file", "registration-id", "state-dir", "timeout", "tpm", "transient", "ttl", "verbose", "yes"}
	got := make(map[string]bool)
	flagsOf(func(_ *cobra.Command, f *pflag.Flag) { got[f.Name] = true })
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		t.Errorf("flags %q, want %q", names, want)
	}
	for _, cmd := range command().Commands() {
		if err := cmd.Args(cmd, []string{"word"}); err == nil {
			t.Errorf("%s takes arguments", cmd.Name())
		}
	}
}

// A variable of each kind reaches the flag it names, and the flag wins.
func TestVariablesStandInForFlags(t *testing.T) {
	s := newService(t)
	t.Setenv("LATCHKEY_TPM", simtpm.NewFront(t, simtpm.NewSimulator(t)).Spec())
	t.Setenv("LATCHKEY_ALGORITHM", "ecc-p256")
	t.Setenv("LATCHKEY_ENDPOINT", "example.com")
	t.Setenv("LATCHKEY_CONNECT", s.Listener.Addr().String())
	t.Setenv("LATCHKEY_ID_SCOPE", scope)
	t.Setenv("LATCHKEY_CA_FILE", s.caFile)
	t.Setenv("LATCHKEY_REGISTRATION_ID", "stranger")
	t.Setenv("LATCHKEY_JSON", "true")
	t.Setenv("LATCHKEY_STATE_DIR", "")
	out, _ := agent(t, exitOK, "register", "--registration-id", "of-the-flag")
	if it := decode[registered](t, out); it.RegistrationID != "of-the-flag" || it.StateFile != "" {
		t.Errorf("got %s", out)
	}
	if _, why := agent(t, exitFailure, "register"); !strings.Contains(why, "404201") {
		t.Errorf("LATCHKEY_REGISTRATION_ID=stranger: %s", why)
	}
	t.Setenv("LATCHKEY_TIMEOUT", "soon")
	if _, why := agent(t, exitUsage, "register"); !strings.Contains(why, "LATCHKEY_TIMEOUT") {
		t.Errorf("LATCHKEY_TIMEOUT=soon: %s", why)
	}
}
