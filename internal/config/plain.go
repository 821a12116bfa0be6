package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What the YAML library says of a key that the configuration does not have, and of a value that does not fit its key.
var (
	unknownKey = regexp.MustCompile(`^line (\d+): field (\S+) not found in type \S+$`)
	wrongValue = regexp.MustCompile("^line (\\d+): cannot unmarshal \\S+(?: `(.*)`)? into (\\S+)$")
)

// kinds say what a value must be, by the Go type that the library names.
var kinds = map[string]string{"bool": "true or false", "int": "a whole number", "time.Duration": "a duration such as 5s or 24h", "string": "a text"}

// plainer makes one sentence of a YAML error, without Go's type names.
func plainer(err error) error {
	var said []string
	for line := range strings.Lines(strings.TrimPrefix(err.Error(), "yaml: ")) {
		if line = strings.TrimSpace(line); line != "unmarshal errors:" {
			said = append(said, plainLine(line))
		}
	}
	return errors.New(strings.Join(said, "; "))
}

func plainLine(line string) string {
	if m := unknownKey.FindStringSubmatch(line); m != nil {
		return fmt.Sprintf("line %s: there is no key %q; docs/configuration.md lists them all", m[1], m[2])
	}
	m := wrongValue.FindStringSubmatch(line)
	switch {
	case m == nil:
		return line
	case kinds[m[3]] == "":
		return fmt.Sprintf("line %s: keys are expected here", m[1])
	case m[2] == "":
		return fmt.Sprintf("line %s: the value is not %s", m[1], kinds[m[3]])
	}
	return fmt.Sprintf("line %s: %q is not %s", m[1], m[2], kinds[m[3]])
}

// refuseFractions refuses what the library would round silently: no setting is a fraction.
func refuseFractions(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!float" {
		return fmt.Errorf("line %d: %q is not a whole number", node.Line, node.Value)
	}
	for _, below := range node.Content {
		if err := refuseFractions(below); err != nil {
			return err
		}
	}
	return nil
}
