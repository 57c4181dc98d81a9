package artifact

import (
	"strings"
)

// mavenCoordinates name a file in a Maven repository.
type mavenCoordinates struct{ group, artifact, version, extension, classifier string }

// parseMaven reads group:artifact:version[:extension[:classifier]].
func parseMaven(s string) (mavenCoordinates, error) {
	parts := strings.Split(s, ":")
	if len(parts) < 3 || len(parts) > 5 {
		return mavenCoordinates{}, badTarget("its coordinates \"" + clean(s, 100) + "\" are not group:artifact:version[:extension[:classifier]]")
	}
	for _, part := range parts {
		if !mavenPart(part) {
			return mavenCoordinates{}, badTarget("the part \"" + clean(part, 60) + "\" of its coordinates may only have letters, digits, . _ - +, no dots in a row or at its ends, and not start with -")
		}
	}
	parts = append(parts, "", "")
	c := mavenCoordinates{group: parts[0], artifact: parts[1], version: parts[2], extension: parts[3], classifier: parts[4]}
	if strings.HasSuffix(strings.ToUpper(c.version), "-SNAPSHOT") {
		return mavenCoordinates{}, badTarget("the version " + c.version + " is a snapshot, which can be overwritten, and which Nexus does not take this way; use a release version such as 1.0.$SHUNT_BUILD")
	}
	return c, nil
}

func mavenPart(s string) bool {
	if s == "" || len(s) > 200 || strings.Contains(s, "..") || strings.ContainsAny(s[:1], ".-") || strings.HasSuffix(s, ".") {
		return false
	}
	for _, c := range []byte(s) {
		if !isNameByte(c, 1) && !strings.ContainsRune("._-+", rune(c)) {
			return false
		}
	}
	return true
}

// extensionFor is the extension of the coordinates, or else that of the file:
// "tar.gz" for petstore.tar.gz, "jar" for petstore-1.0.jar, "bin" without one.
func (c mavenCoordinates) extensionFor(file string) string {
	if c.extension != "" {
		return c.extension
	}
	base, ext := cutExtension(file)
	if inner := strings.HasSuffix(base, ".tar"); inner && mavenPart(ext) {
		return "tar." + ext
	}
	if mavenPart(ext) {
		return ext
	}
	return "bin"
}

func cutExtension(file string) (base, ext string) {
	if i := strings.LastIndexByte(file, '.'); i > 0 {
		return file[:i], file[i+1:]
	}
	return file, ""
}

// path is the layout of Maven 2:
// group/with/slashes/artifact/version/artifact-version[-classifier].extension
func (c mavenCoordinates) path(file string) string {
	name := c.artifact + "-" + c.version
	if c.classifier != "" {
		name += "-" + c.classifier
	}
	return strings.ReplaceAll(c.group, ".", "/") + "/" + c.artifact + "/" + c.version + "/" + name + "." + c.extensionFor(file)
}
