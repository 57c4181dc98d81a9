// Shunt is a continuous-delivery server with a hotfix lane.
package main

import (
	"os"

	"github.com/shuntcd/shunt/internal/cli"
	"github.com/shuntcd/shunt/internal/runner"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == runner.ShimCommand { // one for each job: it must start fast
		os.Exit(runner.Shim())
	}
	os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
