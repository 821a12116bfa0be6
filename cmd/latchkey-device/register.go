package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/device"
)

type registerFlags struct {
	tpm            *tpmFlags
	endpoint       string
	idScope        string
	caFile         string
	connect        string
	registrationID string
	stateDir       string
	timeout        time.Duration
	json           bool
}

// registered is what `register` reports.
type registered struct {
	RegistrationID string `json:"registrationId"`
	AssignedHub    string `json:"assignedHub"`
	DeviceID       string `json:"deviceId"`
	Status         string `json:"status"`
	Substatus      string `json:"substatus,omitempty"`
	OperationID    string `json:"operationId"`
	StateFile      string `json:"stateFile,omitempty"`
}

func registerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "register",
		Short: "Prove this device to the service and fetch its hub, device id and hub key",
		Args:  noArgs,
	}
	f := registerFlags{tpm: addTPMFlags(cmd)}
	f.addServiceFlags(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&f.timeout, "timeout", 15*time.Minute, "give up after this time")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
		defer cancel()
		result, err := f.register(ctx, f.tpm.progress(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), result)
		}
		return result.print(cmd.OutOrStdout())
	}
	return cmd
}

// addServiceFlags adds what says which service knows the device, and as whom.
func (f *registerFlags) addServiceFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.endpoint, "endpoint", "", "provisioning service, HOST or HOST:PORT")
	flags.StringVar(&f.idScope, "id-scope", "", "ID scope at the service")
	flags.StringVar(&f.caFile, "ca-file", "", "PEM file of the CAs that may vouch for the service; default: the system's")
	flags.StringVar(&f.connect, "connect", "", "HOST:PORT to connect to instead of the endpoint's address")
	flags.StringVar(&f.registrationID, "registration-id", "", "id under which the device is enrolled; default: the one of its EK")
	flags.StringVar(&f.stateDir, "state-dir", "", "directory to keep the assignment and the TPM-wrapped hub key in")
}

func (f *registerFlags) register(ctx context.Context, progress device.Progress) (result *registered, err error) {
	client, err := f.client(progress)
	if err != nil {
		return nil, err
	}
	// A directory that cannot be written is better found before the service
	// hands out a key.
	if f.stateDir != "" {
		if err := prepareState(f.stateDir); err != nil {
			return nil, err
		}
	}
	id, err := f.tpm.open(progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, id.Close()) }()
	assigned, err := client.Register(ctx, id, device.RegisterOptions{RegistrationID: f.registrationID})
	if err != nil {
		return nil, err
	}
	result = &registered{RegistrationID: assigned.RegistrationID, AssignedHub: assigned.Hub, DeviceID: assigned.DeviceID,
		Status: assigned.Status, Substatus: assigned.Substatus, OperationID: assigned.OperationID}
	if f.stateDir != "" {
		result.StateFile, err = saveState(f.stateDir, state{Version: stateVersion, Endpoint: f.endpoint, IDScope: f.idScope,
			RegistrationID: assigned.RegistrationID, AssignedHub: assigned.Hub, DeviceID: assigned.DeviceID, HubKey: assigned.Key.Marshal()})
	}
	return result, err
}

func (f *registerFlags) client(progress device.Progress) (*device.Client, error) {
	config := device.ClientConfig{Endpoint: f.endpoint, IDScope: f.idScope, ConnectAddress: f.connect, Progress: progress}
	switch {
	case f.endpoint == "":
		return nil, usageError{errors.New("name the service with --endpoint HOST[:PORT]")}
	case f.idScope == "":
		return nil, usageError{errors.New("name the ID scope with --id-scope SCOPE")}
	}
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no certificate in PEM form", f.caFile)
		}
	}
	client, err := device.NewClient(config)
	if err != nil {
		return nil, usageError{err}
	}
	return client, nil
}

func (r *registered) print(w io.Writer) error {
	kept := r.StateFile
	if kept == "" {
		kept = "not kept (no --state-dir)"
	}
	_, err := fmt.Fprintf(w, `registration id  %s
assigned hub     %s
device id        %s
substatus        %s
hub key          %s
`, r.RegistrationID, r.AssignedHub, r.DeviceID, r.Substatus, kept)
	return err
}
