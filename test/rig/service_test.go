package rig

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestServiceCanBeStoppedKilledAndRunAgain(t *testing.T) {
	s := New(t, Config{Host: "rig.test"})
	wantAnswer(t, s)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err == nil {
		t.Error("a stopped service was killed")
	}
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, s)
	if err := s.Run(); err == nil {
		t.Error("the service runs twice")
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if s.Running() {
		t.Error("the killed service runs")
	}
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, s)
}

func wantAnswer(t *testing.T, s *Service) {
	t.Helper()
	client := s.Client()
	defer client.CloseIdleConnections()
	if err := get(t.Context(), client, s.URL("/healthz")); err != nil {
		t.Error(err)
	}
	if err := get(t.Context(), http.DefaultClient, "http://"+s.Metrics+"/metrics"); err != nil {
		t.Error(err)
	}
}

func TestServiceThatDoesNotStartSaysWhy(t *testing.T) {
	s, err := Start(Config{Flags: []string{"--certificate", "/nonexistent/certificate"}})
	if err == nil {
		s.Close()
		t.Fatal("it started")
	}
	if !strings.Contains(err.Error(), "/nonexistent/certificate") {
		t.Errorf("error %v", err)
	}
}

func TestServiceThatEndsByItselfIsNoticed(t *testing.T) {
	s := New(t, Config{})
	p := s.process
	p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
	if err := s.Stop(); err == nil {
		t.Error("a service that was already dead stopped well")
	}
}
