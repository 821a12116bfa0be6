package packaging

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for another process.
const patience = 30 * time.Second

// serve starts a prepared `latchkey serve` on free ports and gives the address where it listens. stop ends it as a service manager does.
func serve(t *testing.T, cmd *exec.Cmd) (https string, stop func()) {
	t.Helper()
	cmd.Env = append(cmd.Env, "LATCHKEY_HTTPS=127.0.0.1:0", "LATCHKEY_MQTT=127.0.0.1:0", "LATCHKEY_METRICS=127.0.0.1:0")
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // a test that is killed cleans nothing up
	out, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	limit := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	t.Cleanup(func() { cmd.Process.Kill() }) // a stopped one is past it
	log := bufio.NewScanner(out)
	https = listens(log)
	if https == "" {
		t.Fatalf("%v ended: %v", cmd.Args, cmd.Wait())
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for log.Scan() {
		}
	}()
	return https, func() {
		t.Helper()
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		<-drained
		must(t, cmd.Wait())
		limit.Stop()
	}
}

// listens reads a log up to the line that names the HTTPS listener.
func listens(log *bufio.Scanner) string {
	listening := regexp.MustCompile(`msg=listening what=https addr=(\S+)`)
	for log.Scan() {
		if f := listening.FindStringSubmatch(log.Text()); f != nil {
			return f[1]
		}
	}
	return ""
}

// healthy wants /healthz to answer under a certificate of the installation's CA.
func healthy(t *testing.T, https, caFile string) {
	t.Helper()
	ca, err := os.ReadFile(caFile)
	must(t, err)
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(ca)
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trust, ServerName: host}}}
	answer, err := client.Get("https://" + https + "/healthz")
	must(t, err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %s", answer.Status)
	}
}

// environment gives a prepared command the variables of an image or a unit, and later ones go before earlier ones.
func environment(cmd *exec.Cmd, variables []string) *exec.Cmd {
	cmd.Env = append(cmd.Env, variables...)
	return cmd
}

// said is what a command that must succeed printed.
func said(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return string(text)
}
