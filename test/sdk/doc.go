// Package sdk holds the tests that drive the service with clients which are not
// ours: Microsoft's SDKs, unmodified, from npm. The programs in node/ are put
// together as in the vendor's samples. A client may be given another address to
// connect to and the service's CA to trust, and nothing else.
//
// scripts/setup.sh test installs what these tests need; they never skip.
package sdk
