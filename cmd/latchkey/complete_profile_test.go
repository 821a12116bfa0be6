package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const profilesFile = `default:
  connectionString: of-default
  connect: at-default
  caFile: default.crt
plant:
  connectionString: of-plant
  connect: at-plant
  caFile: /plant.crt
bare:
  connectionString: of-bare
`

// How a service is reached is taken from flags, environment and profiles in an order, and never mixed so that a key goes to a foreign address.
func TestProfileCompletesWhatFlagsDoNotSay(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "profiles.yaml")
	if err := os.WriteFile(file, []byte(profilesFile), 0o600); err != nil {
		t.Fatal(err)
	}
	type env map[string]string
	plant := profile{"of-plant", "at-plant", "/plant.crt"}
	all := env{"LATCHKEY_CONNECTION_STRING": "of-env", "LATCHKEY_CONNECT": "at-env", "LATCHKEY_CA_FILE": "env.crt"}
	for name, c := range map[string]struct {
		flags profile
		named string
		env   env
		want  profile
	}{
		"nothing is said":                          {profile{}, "", env{}, profile{"of-default", "at-default", filepath.Join(folder, "default.crt")}},
		"the environment":                          {profile{}, "", all, profile{"of-env", "at-env", "env.crt"}},
		"flags before the environment":             {profile{"of-flag", "at-flag", "flag.crt"}, "", all, profile{"of-flag", "at-flag", "flag.crt"}},
		"a named profile before the environment":   {profile{}, "plant", all, plant},
		"flags before a named profile":             {profile{"", "at-flag", "flag.crt"}, "plant", all, profile{"of-plant", "at-flag", "flag.crt"}},
		"a named profile without address":          {profile{}, "bare", all, profile{"of-bare", "", ""}},
		"the variable names a profile":             {profile{}, "", env{"LATCHKEY_PROFILE": "plant"}, plant},
		"a flag before the variable":               {profile{}, "bare", env{"LATCHKEY_PROFILE": "plant"}, profile{"of-bare", "", ""}},
		"the environment's string goes alone":      {profile{}, "", env{"LATCHKEY_CONNECTION_STRING": "of-env"}, profile{"of-env", "", ""}},
		"and so beside the variable for a profile": {profile{}, "", env{"LATCHKEY_CONNECTION_STRING": "of-env", "LATCHKEY_PROFILE": "plant"}, profile{"of-env", "", ""}},
		"a flag's string goes alone":               {profile{"of-flag", "", ""}, "", env{}, profile{"of-flag", "", ""}},
	} {
		have, err := c.flags.complete(c.named, func(name string) string {
			if name == "LATCHKEY_PROFILES" {
				return file
			}
			return c.env[name]
		})
		if err != nil || have != c.want {
			t.Errorf("%s: %v, %v; want %v", name, have, err, c.want)
		}
	}
}

// What cannot be meant is refused, and what is wrong with the file is told without the secrets in it.
func TestProfileIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		flags profile
		named string
		file  string
		usage bool
		want  string
	}{
		"two sources":               {profile{ConnectionString: "of-flag"}, "plant", profilesFile, true, "--profile and --connection-string contradict each other"},
		"no such profile":           {profile{}, "other", profilesFile, true, `FILE has no profile "other", only: bare, default, plant`},
		"a secret in a wrong place": {profile{}, "", "default:\n  connectionString: [c2VjcmV0]\n", false, "the profile file: FILE: it must hold profiles, each with connectionString, connect and caFile: line 2"},
		"a secret as a name":        {profile{}, "", "default:\n  connect: a\n  c2VjcmV0: a\n", false, "the profile file: FILE: it must hold profiles, each with connectionString, connect and caFile: line 3"},
		"a secret alone":            {profile{}, "", "c2VjcmV0\n", false, "the profile file: FILE: it must hold profiles, each with connectionString, connect and caFile: line 1"},
	} {
		file := filepath.Join(t.TempDir(), "profiles.yaml")
		if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := c.flags.complete(c.named, func(name string) string { return map[string]string{"LATCHKEY_PROFILES": file}[name] })
		var usage usageError
		if err == nil || strings.ReplaceAll(err.Error(), file, "FILE") != c.want || errors.As(err, &usage) != c.usage {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
