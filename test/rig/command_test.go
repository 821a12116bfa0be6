package rig

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestFailedCommandsSayWhatTheySaidButNotTheirArguments(t *testing.T) {
	result, err := Run(context.Background(), Command{Path: "sh", Args: []string{"-c", "echo out; echo sorry >&2; exit 3", "hidden"}})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || result.ExitCode != 3 {
		t.Fatalf("exit code %d, error %v", result.ExitCode, err)
	}
	if result.Stdout != "out\n" || !strings.Contains(err.Error(), "sorry") {
		t.Errorf("output %q, error %v", result.Stdout, err)
	}
	if strings.Contains(err.Error(), "hidden") {
		t.Errorf("an argument is in the error: %v", err)
	}
}

func TestCommandsEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := Run(ctx, Command{Path: "sleep", Args: []string{"600"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
}

func TestSettingsOfTheCallerDoNotReachTheProgram(t *testing.T) {
	t.Setenv("LATCHKEY_CONNECT", "elsewhere")
	result, err := Run(context.Background(), Command{Path: "env", Env: []string{"LATCHKEY_CA_FILE=ours"}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(result.Stdout, "elsewhere") || !strings.Contains(result.Stdout, "LATCHKEY_CA_FILE=ours") {
		t.Errorf("environment:\n%s", result.Stdout)
	}
}

func TestMissingProgramIsAnError(t *testing.T) {
	if _, err := Run(context.Background(), Command{Path: "/nonexistent/program"}); err == nil {
		t.Fatal("no error")
	}
	t.Setenv(BinVariable, t.TempDir())
	if p, err := locate(); err == nil {
		t.Fatalf("an empty %s gave %+v", BinVariable, p)
	}
}
