// Package pipeline reads the pipeline file .shunt.yml and makes the graph of a
// lane from it. It does no I/O except Detect, which looks at a file system to
// propose a first pipeline file.
//
//   - the shape is the declaration of every key (file.go): its name, type,
//     limits, default and meaning. Parse, Schema and Reference read the same
//     declaration, so they cannot drift apart;
//   - a problem is one mistake at one place, with the line it is on and what to
//     do; Parse answers with all of them at once;
//   - a pipeline is the file with all defaults filled; its digest is what an
//     approval binds;
//   - a CI job needs no environment, not even through another job; it runs
//     before the build is tagged and is the same in both lanes;
//   - the graph of a lane has all nodes of the file. What the lane does not want
//     is skipped, and those behind it also wait for what it would have waited for.
//
// The file is hostile. Its size, its number of nodes and its depth are bounded
// before a recursive parser sees it, and again after anchors are expanded.
package pipeline
