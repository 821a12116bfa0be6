package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// story prints what happens, a step at a time.
type story struct {
	w     io.Writer
	begun time.Time
	steps int
}

func newStory(w io.Writer) *story { return &story{w: w, begun: time.Now()} }

func (s *story) say(text string) { fmt.Fprintf(s.w, "%s\n", text) }

func (s *story) act(title, about string) {
	fmt.Fprintf(s.w, "\n%s\n%s\n%s\n", title, strings.Repeat("=", len([]rune(title))), about)
}

// step does one thing that must hold and prints what came of it and how long it took.
func (s *story) step(name string, do func() (string, error)) error {
	begun := time.Now()
	detail, err := do()
	took := time.Since(begun)
	if err != nil {
		fmt.Fprintf(s.w, "  FAILED %-26s %8s  %v\n", name, span(took), err)
		return fmt.Errorf("%s: %w", name, err)
	}
	s.steps++
	lines := strings.Split(detail, "\n")
	fmt.Fprintf(s.w, "  ok  %-29s %8s  %s\n", name, span(took), lines[0])
	for _, line := range lines[1:] {
		fmt.Fprintf(s.w, "      %-29s %8s  %s\n", "", "", line)
	}
	return nil
}

// refused is a step whose attempt must fail, and fail for the reason given: an attempt that fails for another reason proves nothing.
func (s *story) refused(name string, attempt func() error, because func(error) bool) error {
	return s.step(name, func() (string, error) {
		err := attempt()
		switch {
		case err == nil:
			return "", errors.New("it was let in")
		case !because(err):
			return "", fmt.Errorf("it failed, but not for the reason that matters: %w", err)
		}
		return "refused: " + err.Error(), nil
	})
}

func (s *story) end() {
	fmt.Fprintf(s.w, "\nAll %d steps held, in %s.\n", s.steps, time.Since(s.begun).Round(10*time.Millisecond))
}

func span(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// brief shortens a value to what a person can compare.
func brief(text string) string {
	if len(text) <= 20 {
		return text
	}
	return text[:10] + "…" + text[len(text)-6:]
}

func briefBytes(b []byte) string { return brief(hex.EncodeToString(b)) }

// briefToken shortens the signature in a SAS token.
func briefToken(token string) string {
	before, rest, found := strings.Cut(token, "sig=")
	if !found {
		return brief(token)
	}
	sig, after, _ := strings.Cut(rest, "&")
	resource := before
	if _, sr, ok := strings.Cut(before, "sr="); ok {
		resource = "sr=" + brief(strings.TrimSuffix(sr, "&")) + "&"
	}
	return resource + "sig=" + brief(sig) + "&" + after
}
