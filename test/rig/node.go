package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// shared is what the nodes of one installation have in common beside their
// store: each has copies of its own.
var shared = []string{"master.key", "tls", "latchkey.yaml"}

// Join starts another node of a service whose store is PostgreSQL: a process on
// a data directory of its own, with copies of the first one's keys and
// configuration. Programs, Host and Store are the first one's.
func (s *Service) Join(config Config) (*Service, error) {
	if s.config.Store == "" {
		return nil, errors.New("rig: the embedded store is for one node")
	}
	config.Programs, config.Host, config.Store = s.config.Programs, s.config.Host, s.config.Store
	node := &Service{Access: s.Access, config: config, log: newServiceLog()}
	return node.begin(func() error {
		for _, name := range shared {
			if err := clone(filepath.Join(s.DataDir, name), filepath.Join(node.DataDir, name)); err != nil {
				return fmt.Errorf("rig: %w", err)
			}
		}
		return nil
	})
}

// clone copies a file, or a folder with all that is in it, and its mode.
func clone(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return cloneFolder(from, to)
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
}

func cloneFolder(from, to string) error {
	entries, err := os.ReadDir(from)
	for _, entry := range entries {
		if err == nil {
			err = clone(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name()))
		}
	}
	return err
}
