package sqlite

import (
	"fmt"
	"strings"
)

// copyTable is a table as it is copied to another store: a neutral shape, which that store has as well. Its columns are named one by one; a test
// demands that each column of the schema is here or among those that are left out.
type copyTable struct {
	name    string
	columns []copyColumn
}

type copyColumn struct {
	name, from string // from: what it is here, where that has another name
	boolean    bool
	free       bool // text from outside, which need not be text
}

// copyTables come in the order in which they are copied.
var copyTables = []copyTable{
	copying("scopes", "id folded sealed_root created home? certificate sealed_certificate_key"),
	copying("scopes_revision", "one revision"),
	copying("deleted_scopes", "folded scope at done?"),
	copying("scope_hosts", "host scope place=seq"),
	copying("access_policies", "scope name place=seq rights sealed_primary sealed_secondary"),
	copying("linked_hubs", "scope name kind weight allocate? draining? region settings sealed_secret revision created updated"),
	copying("scope_allocations", "scope default_policy regions sealed_webhook_key revision updated"),
	copying("generations", "scope folded generation idle_since"),
	copying("enrollments", "scope folded id revision mechanism ek ek_key_id pinned_srk sealed_primary sealed_secondary certificates device_id disabled? document created updated"),
	copying("enrollment_groups", "scope folded id revision mechanism sealed_primary sealed_secondary certificates disabled? document created updated"),
	copying("ca_certificates", "scope folded name revision der verified? created updated"),
	copying("group_revisions", "scope revision"),
	copying("entry_certificates", "scope sha256 kind folded"),
	copying("registrations", "scope folded id revision status substatus hub device_id mechanism group_id group_folded ek_key_id srk sealed_hub_key "+
		"hub_key_generation operation_id error_code error_message created updated leaving saved payload"),
	copying("operations", "scope id folded registration_id status substatus generation revision mechanism group_id token_digest sealed_key ek srk "+
		"sealed_hub_key hub device_id error_code error_message tracking_id created updated plan"),
	copying("closures", "scope folded generation token_digest tracking_id at"),
	copying("awaited", "scope folded origin object at"),
	copying("offers", "scope folded id target code ek_key_id keys enrolled policy created expires"),
	copying("identities", "scope hub device_id sealed_key generation updated cutting? version created disabled? status_reason status_updated iot_edge?"),
	copying("identity_generations", "scope hub device_id generation version at"),
	copying("twins", "scope hub device_id tags desired reported desired_metadata reported_metadata desired_version reported_version version updated"),
	copying("hub_queues", "scope hub device_id last listens"),
	copying("hub_messages", "scope hub device_id n id correlation_id user_id ack properties enqueued expires deliveries body"),
	copying("outbox", "scope kind object created due claim attempts failure!"),
	copying("audit", "scope n=seq place=seq at actor! address! action! object! outcome! reason tracking_id! detail!"),
	copying("audit_retention", "scope before"),
}

// copying reads a list of columns: "a=b" is b here, "a?" is true or false, "a!" is free text.
func copying(name, columns string) copyTable {
	t := copyTable{name: name}
	for column := range strings.FieldsSeq(columns) {
		bare := strings.TrimRight(column, "?!")
		name, from, renamed := strings.Cut(bare, "=")
		if !renamed {
			from = name
		}
		t.columns = append(t.columns, copyColumn{name: name, from: from, boolean: strings.HasSuffix(column, "?"), free: strings.HasSuffix(column, "!")})
	}
	return t
}

// sql selects the place of each row and then its columns, of rows behind ?1, at most ?2.
func (t copyTable) sql() string {
	var columns strings.Builder
	for _, column := range t.columns {
		columns.WriteString(", " + column.from)
	}
	return `SELECT rowid` + columns.String() + ` FROM ` + t.name + ` WHERE rowid > ?1 ORDER BY rowid LIMIT ?2`
}

func tableOf(name string) (copyTable, error) {
	for _, t := range copyTables {
		if t.name == name {
			return t, nil
		}
	}
	return copyTable{}, fmt.Errorf("no table %s is copied", name)
}

// CopyTables names the tables that are copied, in that order, each with its columns behind it.
func CopyTables() (tables [][]string) {
	for _, t := range copyTables {
		list := []string{t.name}
		for _, column := range t.columns {
			list = append(list, column.name)
		}
		tables = append(tables, list)
	}
	return tables
}

// clean makes text of whatever came from outside, as stores must that take nothing else.
func clean(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}
