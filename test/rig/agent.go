package rig

import "context"

// Device is a device as its agent sees it.
type Device struct {
	TPM      string // as the agent's --tpm takes it
	StateDir string // where the agent keeps the assignment
}

// Agent runs the device agent with the settings that a device of this service
// has.
func (s *Access) Agent(ctx context.Context, d Device, arguments ...string) (Result, error) {
	return Run(ctx, Command{Path: s.programs.Agent, Args: arguments, Env: s.AgentEnv(d)})
}

// AgentEnv is the agent's environment, NAME=value.
func (s *Access) AgentEnv(d Device) []string {
	return []string{
		"LATCHKEY_TPM=" + d.TPM,
		"LATCHKEY_STATE_DIR=" + d.StateDir,
		"LATCHKEY_ENDPOINT=" + s.Host,
		"LATCHKEY_CONNECT=" + s.HTTPS,
		"LATCHKEY_ID_SCOPE=" + s.IDScope,
		"LATCHKEY_CA_FILE=" + s.CAFile,
	}
}

// Register runs the agent's register command.
func (s *Access) Register(ctx context.Context, d Device, arguments ...string) (Result, error) {
	return s.Agent(ctx, d, append([]string{"register"}, arguments...)...)
}
