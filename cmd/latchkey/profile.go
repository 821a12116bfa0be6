package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	profileHelp    = "profile of the profile file to take what is not given (LATCHKEY_PROFILE, default \"default\"; the file is LATCHKEY_PROFILES or latchkey/profiles.yaml in the user's configuration folder)"
	defaultProfile = "default"
)

// profile says how to reach a scope. In the profile file each has a name:
//
//	plant1:
//	  connectionString: HostName=…
//	  caFile: /etc/latchkey/ca.crt
type profile struct {
	ConnectionString string `yaml:"connectionString"`
	Connect          string `yaml:"connect"`
	CAFile           string `yaml:"caFile"`
}

// complete fills up what flags did not give: from the environment, then from the profile file. A profile that is named must be there. A
// profile never lends its address and CA to a connection string from elsewhere.
func (p profile) complete(name string, getenv func(string) string) (profile, error) {
	if name != "" && p.ConnectionString != "" {
		return profile{}, usageError{errors.New("--profile and --connection-string contradict each other")}
	}
	if name == "" { // a profile that the command line names goes before the environment
		p.Connect, p.CAFile = cmp.Or(p.Connect, getenv("LATCHKEY_CONNECT")), cmp.Or(p.CAFile, getenv("LATCHKEY_CA_FILE"))
		p.ConnectionString = cmp.Or(p.ConnectionString, getenv("LATCHKEY_CONNECTION_STRING"))
	}
	named := cmp.Or(name, getenv("LATCHKEY_PROFILE"))
	if p.ConnectionString != "" {
		return p, nil
	}
	all, file, err := readProfiles(getenv)
	if errors.Is(err, fs.ErrNotExist) && named == "" {
		return p, nil
	}
	if err != nil {
		return profile{}, fmt.Errorf("the profile file: %w", err)
	}
	found, ok := all[cmp.Or(named, defaultProfile)]
	switch {
	case !ok && named == "":
		return p, nil
	case !ok:
		return profile{}, usageError{fmt.Errorf("%s has no profile %q, only: %s", file, named, strings.Join(slices.Sorted(maps.Keys(all)), ", "))}
	}
	if found.CAFile != "" && !filepath.IsAbs(found.CAFile) {
		found.CAFile = filepath.Join(filepath.Dir(file), found.CAFile)
	}
	p.ConnectionString, p.Connect, p.CAFile = found.ConnectionString, cmp.Or(p.Connect, found.Connect), cmp.Or(p.CAFile, found.CAFile)
	return p, nil
}

// readProfiles reads the profile file, which holds secrets: one that others may read is refused.
func readProfiles(getenv func(string) string) (map[string]profile, string, error) {
	file := getenv("LATCHKEY_PROFILES")
	if file == "" {
		folder, err := os.UserConfigDir()
		if err != nil {
			return nil, "", fs.ErrNotExist
		}
		file = filepath.Join(folder, "latchkey", "profiles.yaml")
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, file, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, file, fmt.Errorf("%s holds secrets and others may read it: chmod 600 it", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, file, err
	}
	all := map[string]profile{}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil && len(bytes.TrimSpace(data)) > 0 {
		return nil, file, fmt.Errorf("%s: it must hold profiles, each with connectionString, connect and caFile: line %s", file, lineOf(err))
	}
	return all, file, nil
}

// lineOf is where a YAML error is; its text could show a secret.
func lineOf(err error) string {
	_, rest, found := strings.Cut(err.Error(), "line ")
	if !found {
		return "1"
	}
	number, _, _ := strings.Cut(rest, ":")
	return number
}
