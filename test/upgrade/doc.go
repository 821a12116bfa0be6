// Package upgrade takes installations that earlier releases made, kept in testdata, to the present release and to the other store, and goes on with
// them as their devices and operators would.
package upgrade
