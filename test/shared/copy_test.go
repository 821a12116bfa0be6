package shared

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

// An installation moves from the embedded store to PostgreSQL as an operator does it: the command prints what goes into the configuration.
func TestAnInstallationMovesFromTheEmbeddedStore(t *testing.T) {
	service := rig.New(t, rig.Config{})
	chip := rig.Device{TPM: simtpm.NewFront(t, simtpm.NewSwtpm(t)).Spec(), StateDir: t.TempDir()}
	id := enroll(t, service, chip)
	register(t, service, chip)
	before, err := service.Latchkey(t.Context(), "audit", "--output", "json")
	said(t, before.Stdout, err, true, id)

	address := database(t, "moved")
	output, err := local(t, service, "store", "copy", "--to", address)
	said(t, output, err, false, "stop it first")
	if err := service.Stop(); err != nil {
		t.Fatal(err)
	}
	output, err = local(t, service, "store", "copy")
	said(t, output, err, false, "name an empty database with --to")
	output, err = local(t, service, "store", "copy", "--undo")
	said(t, output, err, false, "was not moved")
	output, err = local(t, service, "store", "copy", "--to", address)
	said(t, output, err, true, "rows to moved at")
	setting := regexp.MustCompile(`(?m)^store: .*$`).FindString(output)
	output, err = local(t, service, "serve")
	said(t, output, err, false, "was moved to moved at")
	configure(t, service, setting)
	if err := service.Run(); err != nil {
		t.Fatal(err)
	}
	register(t, service, chip)
	result, err := service.Latchkey(t.Context(), "registration", "show", id)
	said(t, result.Stdout, err, true, "assigned")
	after, err := service.Latchkey(t.Context(), "audit", "--output", "json")
	said(t, after.Stdout, err, true, before.Stdout) // it begins with all that was there
	if err := service.Stop(); err != nil {
		t.Fatal(err)
	}
	output, err = local(t, service, "fsck")
	said(t, output, err, true, ": 0 problems")
	output, err = local(t, service, "store", "copy", "--to", address, "--output", "json")
	said(t, output, err, true, `"already": true`)
	output, err = local(t, service, "store", "copy", "--undo")
	said(t, output, err, true, "in use again")
}

// configure adds a line to the configuration of a service.
func configure(t *testing.T, service *rig.Service, line string) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(service.DataDir, "latchkey.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
}
