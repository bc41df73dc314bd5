package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weir/cmd/weir/manual"
	"weir/control"
)

// What --help, the manual page and shell completion say of a command stands in the command itself: Use, Short, Long, Example, its flags, and
// its exit codes where exits gave it others than those of a command that asks the daemon. A test walks all commands, so that none is
// without an example.

// exitTexts are the exit codes, in order, and what they mean where a command does not say it better.
var exitTexts = []struct {
	code int
	text string
}{
	{0, "done"},
	{exitFailed, "it failed while running"},
	{exitUsage, "wrong usage, or a file that cannot be read"},
	{exitInvalid, "the configuration is invalid, or refused"},
	{exitDiffers, "they differ"},
	{exitNoDaemon, "no daemon answers"},
	{exitRight, "a right or capability is missing; the message says which"},
}

// exitsKey is the annotation that exits makes.
const exitsKey = "exits"

// exits names the exit codes that a command has besides 0, 1 and 2, instead of those of one that asks the daemon. Commands below it
// have the same unless they say others.
func exits(c *cobra.Command, codes ...int) *cobra.Command {
	text := []string{}
	for _, code := range codes {
		text = append(text, strconv.Itoa(code))
	}
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[exitsKey] = strings.Join(text, " ")
	return c
}

// exitsOf is what a command's exit codes mean, in order. The root has all there are.
func exitsOf(c *cobra.Command) (all []manual.Exit) {
	some := []int{exitNoDaemon, exitRight}
	for above := c; above != nil; above = above.Parent() {
		if text, ok := above.Annotations[exitsKey]; ok {
			some = nil
			for _, f := range strings.Fields(text) {
				n, _ := strconv.Atoi(f)
				some = append(some, n)
			}
			break
		}
	}
	for _, x := range exitTexts {
		if x.code <= exitUsage || slices.Contains(some, x.code) || !c.HasParent() {
			all = append(all, manual.Exit{Code: x.code, Text: x.text})
		}
	}
	return all
}

// printExits is what help says after all else.
func printExits(w io.Writer, c *cobra.Command) {
	fmt.Fprintln(w, "\nExit codes:")
	for _, x := range exitsOf(c) {
		fmt.Fprintf(w, "  %d  %s\n", x.Code, x.Text)
	}
}

// group puts commands under a heading of the root's help.
func group(root *cobra.Command, id, title string, all ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: id, Title: title})
	for _, c := range all {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// complete has shells offer what flags take, of all commands below c: layouts, configuration files, and what the daemon knows.
func complete(c *cobra.Command) {
	for _, below := range c.Commands() {
		complete(below)
	}
	offer := func(flag string, f cobra.CompletionFunc) {
		if c.LocalFlags().Lookup(flag) != nil {
			_ = c.RegisterFlagCompletionFunc(flag, f) // an error is that the command has its own already
		}
	}
	offer("output", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return layouts(c.Flags().Lookup("output").Usage), cobra.ShellCompDirectiveNoFileComp
	})
	offer("config", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	})
	offer("service", known(func(s *control.ServiceView) []string { return []string{s.Name} }))
	offer("backend", known(func(s *control.ServiceView) (names []string) {
		for i := range s.Backends {
			names = append(names, s.Backends[i].Name)
		}
		return names
	}))
}

// layouts are the words that the usage of -o begins with: "table, json, or ipvsadm (the layout of ipvsadm -Ln)".
func layouts(usage string) (words []string) {
	usage, _, _ = strings.Cut(usage, "(")
	for _, w := range strings.FieldsFunc(usage, func(r rune) bool { return r == ',' || r == ' ' }) {
		if w != "or" {
			words = append(words, w)
		}
	}
	return words
}

// known offers what the daemon says of its services; nothing if none answers.
func known(names func(*control.ServiceView) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) (all []string, _ cobra.ShellCompDirective) {
		socket, _ := c.Flags().GetString("socket")
		var raw json.RawMessage
		var services []control.ServiceView
		client := control.NewClient(socket)
		client.Patience = time.Second // a shell waits for it
		if client.Get("/list", &raw) == nil && json.Unmarshal(raw, &services) == nil {
			for i := range services {
				all = append(all, names(&services[i])...)
			}
		}
		slices.Sort(all)
		return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
	}
}

// completionCommand prints what a shell reads to complete weir's commands.
func completionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print what a shell reads to complete commands, flags, and names that the daemon knows",
		Example:   "  weir completion bash > /etc/bash_completion.d/weir\n  weir completion zsh > /usr/local/share/zsh/site-functions/_weir\n  weir completion fish > ~/.config/fish/completions/weir.fish",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(c *cobra.Command, args []string) error {
			switch args[0] {
			case "zsh":
				return c.Root().GenZshCompletion(c.OutOrStdout())
			case "fish":
				return c.Root().GenFishCompletion(c.OutOrStdout(), true)
			}
			return c.Root().GenBashCompletionV2(c.OutOrStdout(), true)
		},
	}
	return exits(c)
}
