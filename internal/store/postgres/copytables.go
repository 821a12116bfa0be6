package postgres

import (
	"fmt"
	"strings"
)

// copyTable is a table as a copy from another store fills it. Its columns are named one by one; a test demands that each column of the schema is
// here or among those that a copy leaves as they are.
type copyTable struct {
	name    string
	columns []string
	of      string // a condition on the rows that are the other store's too; empty: all are
}

// copyTables come in the order in which they are filled: enrollments find what is counted of their ids.
var copyTables = []copyTable{
	filling("scopes", "id folded sealed_root created home certificate sealed_certificate_key"),
	filling("scopes_revision", "one revision"),
	filling("deleted_scopes", "folded scope at done"),
	filling("scope_hosts", "host scope place"),
	filling("access_policies", "scope name place rights sealed_primary sealed_secondary"),
	filling("linked_hubs", "scope name kind weight allocate draining region settings sealed_secret revision created updated"),
	filling("scope_allocations", "scope default_policy regions sealed_webhook_key revision updated"),
	{"generations", strings.Fields("scope folded generation idle_since"), "generation > 0"}, // the others are there for their lock
	filling("enrollments", "scope folded id revision mechanism ek ek_key_id pinned_srk sealed_primary sealed_secondary certificates device_id disabled document created updated"),
	filling("enrollment_groups", "scope folded id revision mechanism sealed_primary sealed_secondary certificates disabled document created updated"),
	filling("ca_certificates", "scope folded name revision der verified created updated"),
	filling("group_revisions", "scope revision"),
	filling("entry_certificates", "scope sha256 kind folded"),
	filling("registrations", "scope folded id revision status substatus hub device_id mechanism group_id group_folded ek_key_id srk sealed_hub_key "+
		"hub_key_generation operation_id error_code error_message created updated leaving saved payload"),
	filling("operations", "scope id folded registration_id status substatus generation revision mechanism group_id token_digest sealed_key ek srk "+
		"sealed_hub_key hub device_id error_code error_message tracking_id created updated plan"),
	filling("closures", "scope folded generation token_digest tracking_id at"),
	filling("awaited", "scope folded origin object at"),
	filling("offers", "scope folded id target code ek_key_id keys enrolled policy created expires"),
	filling("identities", "scope hub device_id sealed_key generation updated cutting version created disabled status_reason status_updated iot_edge"),
	filling("identity_generations", "scope hub device_id generation version at"),
	filling("twins", "scope hub device_id tags desired reported desired_metadata reported_metadata desired_version reported_version version updated"),
	filling("hub_queues", "scope hub device_id last listens"),
	filling("hub_messages", "scope hub device_id n id correlation_id user_id ack properties enqueued expires deliveries body"),
	filling("outbox", "scope kind object created due claim attempts failure"),
	filling("audit", "scope n place at actor address action object outcome reason tracking_id detail"),
	filling("audit_retention", "scope before"),
}

func filling(name, columns string) copyTable {
	return copyTable{name: name, columns: strings.Fields(columns)}
}

// derived are tables that hold what follows from others, and the memory of what a copy leaves behind. It empties them, too.
var derived = []string{"device_ids", "audit_heads", "owners"}

func tableOf(name string) (copyTable, error) {
	for _, t := range copyTables {
		if t.name == name {
			return t, nil
		}
	}
	return copyTable{}, fmt.Errorf("no table %s is copied", name)
}

// CopyTables names the tables that are filled, in that order, each with its columns behind it.
func CopyTables() (tables [][]string) {
	for _, t := range copyTables {
		tables = append(tables, append([]string{t.name}, t.columns...))
	}
	return tables
}

// at gives the values of some columns of rows.
func (t copyTable) at(rows [][]any, columns ...string) [][]any {
	var places []int
	for _, name := range columns {
		for i, column := range t.columns {
			if column == name {
				places = append(places, i)
			}
		}
	}
	picked := make([][]any, len(rows))
	for i, row := range rows {
		for _, place := range places {
			picked[i] = append(picked[i], row[place])
		}
	}
	return picked
}
