package main

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// choices are the words of flags that take one of a few.
var choices = map[string][]string{
	"key":         {"primary", "secondary"},
	"if-exists":   {"error", "skip", "replace"},
	"format":      {"ndjson", "csv"},
	"kind":        {"azure", "broker", "embedded"},
	"default":     {"hashed", "geoLatency", "static"},
	"allocation":  {"hashed", "geoLatency", "static", "custom"},
	"reprovision": {"migrate", "reset", "never", "none"},
}

// complete makes the shell offer words where there are words, file names where a file is wanted, and nothing in place of an id.
func complete(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil && !takesFile(cmd) {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { completeFlag(cmd, f) })
	for _, c := range cmd.Commands() {
		complete(c)
	}
}

// takesFile says whether the first argument is a file, which the line of usage then calls so.
func takesFile(cmd *cobra.Command) bool {
	words := strings.Fields(cmd.Use)
	return len(words) > 1 && words[1] == "FILE"
}

func completeFlag(cmd *cobra.Command, f *pflag.Flag) {
	if _, has := cmd.GetFlagCompletionFunc(f.Name); has {
		return
	}
	var how cobra.CompletionFunc
	switch {
	case choices[f.Name] != nil:
		how = cobra.FixedCompletions(choices[f.Name], cobra.ShellCompDirectiveNoFileComp)
	case f.Name == "rights":
		how = completeRights
	case f.Name == "profile":
		how = completeProfile
	case namesFile(f.Usage):
		return
	default:
		how = cobra.NoFileCompletions
	}
	_ = cmd.RegisterFlagCompletionFunc(f.Name, how) // it is there, and has none yet
}

// namesFile says whether the help of a flag speaks of what it names as a file or a directory.
func namesFile(usage string) bool {
	usage = strings.ToLower(usage)
	return strings.Contains(usage, "file") || strings.Contains(usage, "directory") || strings.Contains(usage, "folder")
}

// completeRights completes a list that commas divide, each permission once.
func completeRights(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	var offered []cobra.Completion
	for _, p := range permissions {
		if !slices.Contains(strings.Split(before, ","), p) && strings.HasPrefix(before+p, typed) {
			offered = append(offered, before+p)
		}
	}
	return offered, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeProfile offers the names in the profile file; one that cannot be read has none.
func completeProfile(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all, _, _ := readProfiles(os.Getenv)
	return slices.Sorted(maps.Keys(all)), cobra.ShellCompDirectiveNoFileComp
}
