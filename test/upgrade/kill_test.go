package upgrade

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
)

// The test program itself is the process that copies, when it is started with these.
const (
	copyData = "LATCHKEY_TEST_COPY_DATA"
	copyTo   = "LATCHKEY_TEST_COPY_TO"
)

// copyAsProcess copies and prints a line for each step.
func copyAsProcess(dir string) int {
	cfg, err := config.Load(dir, "", func(string) string { return "" }, nil)
	if err == nil {
		_, err = daemon.Copy(context.Background(), cfg, daemon.CopyPlan{To: os.Getenv(copyTo), Page: 4, Progress: func(step daemon.CopyStep) error {
			_, err := fmt.Println(step.What, step.Table)
			return err
		}})
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// The process is killed with SIGKILL somewhere behind a step, most often in the middle of the next one, until it is done in one go.
func TestACopyThatIsKilledGoesOn(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	cfg, f := migrated(t), readFacts(t)
	before := readEmbedded(t, cfg, f.SQLite)
	address := server.Address(emptyDatabase(t))
	program, err := os.Executable()
	must(t, err)
	kills := 0
	for ; kills < 8; kills++ {
		if !killedBehind(t, program, cfg, address, 1+chance.IntN(15)) {
			break
		}
	}
	if kills < 4 {
		t.Fatalf("it was killed only %d times", kills)
	}
	report, err := daemon.Copy(t.Context(), cfg, daemon.CopyPlan{To: address})
	must(t, err)
	if !report.Already && report.Rows < 200 {
		t.Errorf("%+v", report)
	}
	s := openPostgres(t, address)
	readsAs(t, s, before, f.SQLite)
	newWorld(t, s, ringOf(t, cfg), f, f.SQLite).goOn()
}

// killedBehind starts the copy and kills it so many steps on; false if it ended by itself before.
func killedBehind(t *testing.T, program string, cfg config.Config, address string, steps int) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), copyData+"="+strings.TrimSuffix(cfg.Database, "/latchkey.db"), copyTo+"="+address)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for range steps {
		if !lines.Scan() {
			must(t, cmd.Wait())
			return false
		}
		if strings.HasPrefix(lines.Text(), "error") {
			t.Error(lines.Text())
		}
	}
	must(t, cmd.Process.Kill())
	return cmd.Wait() != nil
}
