// Package differential plays the same random histories on the model of the contract, on SQLite and on PostgreSQL, and compares every word that
// comes back. The histories and the model are storetest's.
package differential
