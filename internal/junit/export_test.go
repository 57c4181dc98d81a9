package junit

// ParseLimited is Parse with another limit in bytes.
var ParseLimited = parse
