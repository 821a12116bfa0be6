package device

// What FuzzEKsFromNV gives bytes of an NV index to.
var (
	ReadCertificate = readCertificate
	ReadChain       = readChain
	ParseTemplate   = parseTemplate
)
