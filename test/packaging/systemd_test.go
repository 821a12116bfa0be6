//go:build systemd

package packaging

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// booted is a systemd in namespaces of its own, over a copy of this machine that goes away with the test.
type booted struct {
	t   *testing.T
	pid string
}

func boot(t *testing.T) booted {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("to boot systemd takes root: run make test-unit as root")
	}
	scratch := t.TempDir()
	cmd := exec.Command(filepath.Join(source(t), "test/packaging/boot.sh"), scratch)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		removeGroup(t, filepath.Join(scratch, "cgroup"))
	})
	b := booted{t: t}
	b.until("systemd runs", func() bool {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		b.pid = strings.TrimSpace(string(children))
		name, _ := os.ReadFile("/proc/" + b.pid + "/comm")
		return b.pid != "" && string(name) == "systemd\n"
	})
	b.until("systemd answers", func() bool { _, err := b.try("systemctl", "is-system-running", "--wait"); return err == nil })
	return b
}

// removeGroup removes the cgroups that boot.sh made, when their last process is gone.
func removeGroup(t *testing.T, note string) {
	t.Helper()
	name, err := os.ReadFile(note)
	must(t, err)
	group := strings.TrimSpace(string(name))
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		exec.Command("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
		if _, err := os.Stat(group); err != nil {
			return
		}
	}
	t.Errorf("%s is still there", group)
}

func (b booted) try(command ...string) (string, error) { return b.feed(nil, command...) }

// feed runs a command inside with a standard input from outside.
func (b booted) feed(in io.Reader, command ...string) (string, error) {
	result, err := rig.Run(b.t.Context(), rig.Command{Path: "nsenter", Args: append([]string{"-t", b.pid, "-m", "-u", "-i", "-n", "-p", "--"}, command...), In: in})
	return result.Stdout + result.Stderr, err
}

// install installs a package from outside.
func (b booted) install(deb string) {
	b.t.Helper()
	f, err := os.Open(deb)
	must(b.t, err)
	defer f.Close()
	if said, err := b.feed(f, "sh", "-c", "cat >/run/latchkey.deb && dpkg -i /run/latchkey.deb"); err != nil {
		b.t.Fatalf("%v\n%s", err, said)
	}
}

func (b booted) run(command ...string) string {
	b.t.Helper()
	said, err := b.try(command...)
	if err != nil {
		journal, _ := b.try("journalctl", "--no-pager", "-u", "latchkey", "-n", "30")
		b.t.Fatalf("%v: %v\n%s\nthe journal:\n%s", command, err, said, journal)
	}
	return said
}

// until polls what other processes do.
func (b booted) until(what string, done func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (b booted) property(name string) string {
	b.t.Helper()
	return strings.TrimSpace(b.run("systemctl", "show", "--value", "-p", name, "latchkey"))
}

// metrics reads the metrics listener as one on the same machine does; the shell can.
func (b booted) metrics() string {
	b.t.Helper()
	return b.run("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9464 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3`)
}

// dropIn puts lines on top of the unit's.
func (b booted) dropIn(lines string) {
	b.t.Helper()
	b.run("sh", "-c", `mkdir -p /run/systemd/system/latchkey.service.d && printf '%s' "$1" >/run/systemd/system/latchkey.service.d/test.conf && systemctl daemon-reload`, "sh", lines)
}

// The whole life of a packaged service under the unit as it is: systemd starts, reloads, revives and stops it, with every restriction in force.
func TestTheServiceLivesUnderItsUnit(t *testing.T) {
	deb, b := deb(t), boot(t)
	b.install(deb)
	if enabled, _ := b.try("systemctl", "is-enabled", "latchkey"); strings.TrimSpace(enabled) != "disabled" || b.property("ActiveState") != "inactive" {
		t.Errorf("after the installation the service is %s and %s", enabled, b.property("ActiveState"))
	}
	if said, err := b.try("systemctl", "start", "latchkey"); err == nil {
		t.Errorf("a service without an installation started: %s", said)
	}
	b.run("systemctl", "stop", "latchkey")

	b.run("runuser", "-u", "latchkey", "--", "sh", "-c", "umask 077 && latchkey init --data /var/lib/latchkey --host dps.example.net --json >/var/lib/latchkey/made")
	b.run("systemctl", "enable", "--now", "latchkey")
	b.operate() // at once: a start that is done is one that answers
	b.confined()

	b.run("systemctl", "reload", "latchkey")
	b.until("reloaded", func() bool {
		return strings.Contains(b.run("journalctl", "--no-pager", "-u", "latchkey"), "msg=reloaded")
	})
	if state := b.property("ActiveState"); state != "active" && state != "reloading" {
		t.Errorf("after a reload the service is %s", state)
	}

	before := b.property("MainPID")
	b.install(deb) // an upgrade
	if pid := b.property("MainPID"); pid != before {
		t.Error("an upgrade restarted the service")
	}
	b.run("bash", "-c", "kill -9 "+before)
	b.until("the service is there again", func() bool {
		pid := b.property("MainPID")
		return pid != "0" && pid != before && b.property("ActiveState") == "active"
	})
	b.operate()

	b.run("dpkg", "--purge", "latchkey")
	if state := b.property("ActiveState"); state != "inactive" {
		t.Errorf("after the package was removed the service is %s", state)
	}
	b.run("test", "-s", "/var/lib/latchkey/master.key")
}

// operate uses the service over the network and its data directory on the server.
func (b booted) operate() {
	b.t.Helper()
	b.run("bash", "-c", `set -e
made=$(cat /var/lib/latchkey/made)
value() { printf '%s' "$made" | sed -E "s/.*\"$1\":\"([^\"]*)\".*/\1/; s/\\\\u0026/\&/g"; }
export LATCHKEY_CONNECTION_STRING=$(value connectionString) LATCHKEY_CA_FILE=/var/lib/latchkey/tls/ca.crt LATCHKEY_CONNECT=127.0.0.1:443
latchkey group add valves-$RANDOM --symmetric-key >/dev/null
latchkey statistics
runuser -u latchkey -- latchkey fsck --data /var/lib/latchkey
runuser -u latchkey -- latchkey backup --data /var/lib/latchkey --output /tmp/backup-$RANDOM.tar`)
	for _, metric := range []string{"\nprocess_start_time_seconds ", "\nprocess_open_fds ", "\nlatchkey_certificate_expiry_seconds "} {
		if !strings.Contains(b.metrics(), metric) {
			b.t.Errorf("under the unit there is no metric %q", metric)
		}
	}
}

// confined looks from outside at what the process may do.
func (b booted) confined() {
	b.t.Helper()
	pid := b.property("MainPID")
	status := b.run("cat", "/proc/"+pid+"/status")
	for _, line := range []string{"CapEff:\t0000000000000400\n", "CapBnd:\t0000000000000400\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(status, line) {
			b.t.Errorf("the process has not %q:\n%s", line, status)
		}
	}
	if uid := strings.TrimSpace(b.run("id", "-u", "latchkey")); uid == "0" || !strings.Contains(status, "\nUid:\t"+strings.Repeat(uid+"\t", 3)+uid+"\n") {
		b.t.Errorf("the process does not run as uid %s:\n%s", uid, status)
	}
	write := func(path string) error {
		_, err := b.try("nsenter", "-t", pid, "-m", "--", "touch", path) // as root: the file system itself refuses
		return err
	}
	for _, path := range []string{"/usr/bin/x", "/etc/x", "/var/lib/x", "/home/x", "/root/x"} {
		if write(path) == nil {
			b.t.Errorf("%s can be written", path)
		}
	}
	must(b.t, write("/var/lib/latchkey/x"))
}

// The restrictions are those that hold: a service that needs one more right than it has does not start.
func TestAUnitWithLessDoesNotStart(t *testing.T) {
	deb, b := deb(t), boot(t)
	b.install(deb)
	b.run("runuser", "-u", "latchkey", "--", "latchkey", "init", "--data", "/var/lib/latchkey", "--host", host)
	for _, c := range []struct{ lines, complaint string }{
		{"[Service]\nAmbientCapabilities=\n", "bind: permission denied"},
		{"[Service]\nSystemCallFilter=~bind\n", "bind: operation not permitted"},
		{"[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX\n", "address family not supported"},
		{"[Service]\nStateDirectory=\n", "read-only"},
	} {
		b.dropIn(c.lines + "Restart=no\n")
		if _, err := b.try("systemctl", "start", "latchkey"); err == nil {
			t.Errorf("with %q it started", c.lines)
		}
		b.run("journalctl", "--sync")
		if said := b.run("journalctl", "--no-pager", "_SYSTEMD_INVOCATION_ID="+b.property("InvocationID")); !strings.Contains(said, c.complaint) {
			t.Errorf("with %q it does not say %q:\n%s", c.lines, c.complaint, said)
		}
	}
	b.dropIn("")
	b.run("systemctl", "start", "latchkey")
}
