package storetest

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// show writes a value as one line with all that is in it but what is empty, so that nil and empty look the same.
func show(v any) string {
	var b strings.Builder
	write(&b, reflect.ValueOf(v))
	return b.String()
}

func write(b *strings.Builder, v reflect.Value) {
	switch {
	case !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil():
		b.WriteString("-")
	case v.Type() == reflect.TypeFor[netip.Prefix]():
		b.WriteString(v.Interface().(netip.Prefix).String())
	case v.Type() == reflect.TypeFor[time.Time]():
		fmt.Fprintf(b, "%.6f", v.Interface().(time.Time).Sub(epoch).Seconds())
	case v.Kind() == reflect.Pointer:
		write(b, v.Elem())
	case v.Kind() == reflect.Struct:
		writeStruct(b, v)
	case v.Kind() == reflect.Array:
		fmt.Fprintf(b, "%x", v.Interface())
	case v.Type() == reflect.TypeFor[[]byte]():
		fmt.Fprintf(b, "%q", v.Bytes())
	case v.Kind() == reflect.Slice:
		b.WriteString("[")
		for i := range v.Len() {
			if i > 0 {
				b.WriteString(", ")
			}
			write(b, v.Index(i))
		}
		b.WriteString("]")
	default: // fmt puts maps in order of their keys
		fmt.Fprintf(b, "%v", v.Interface())
	}
}

func writeStruct(b *strings.Builder, v reflect.Value) {
	b.WriteString("{")
	first := true
	for i := range v.NumField() {
		field := v.Field(i)
		if field.IsZero() || field.Kind() == reflect.Slice && field.Len() == 0 || field.Kind() == reflect.Map && field.Len() == 0 {
			continue
		}
		if !first {
			b.WriteString(" ")
		}
		first = false
		b.WriteString(v.Type().Field(i).Name + ":")
		write(b, field)
	}
	b.WriteString("}")
}

// numbered rows are shown with the names of their revisions.

func (p *player) enrollment(scope string, e registration.Enrollment) string {
	name := p.revision(scope).name(e.Revision)
	e.Revision = 0
	return "r" + name + show(e)
}

func (p *player) group(scope string, g registration.Group) string {
	name := p.revision(scope).name(g.Revision)
	g.Revision = 0
	return "r" + name + show(g)
}

func (p *player) authority(scope string, c registration.CACertificate) string {
	name := p.revision(scope).name(c.Revision)
	c.Revision = 0
	return "r" + name + show(c)
}

func (p *player) registration(scope string, r registration.Registration) string {
	name := p.revision(scope).name(r.Revision)
	r.Revision = 0
	return "r" + name + show(r)
}

func (p *player) operation(scope string, o registration.Operation) string {
	name := p.revision(scope).name(o.Revision)
	o.Revision = 0
	return "r" + name + show(o)
}

func (p *player) hub(scope string, h registration.LinkedHub) string {
	name := p.revision(scope).name(h.Revision)
	h.Revision = 0
	return "r" + name + show(h)
}

func (p *player) allocation(scope string, a registration.AllocationSettings) string {
	name := p.revision(scope).name(a.Revision)
	a.Revision = 0
	return "r" + name + show(a)
}

// scope shows one with its linked hubs, which the calls that put them have given names.
func (p *player) scope(s registration.Scope) string {
	parts := []string{"allocation " + p.allocation(s.ID, s.Allocation)}
	for _, h := range slices.Clone(s.Hubs) {
		parts = append(parts, "hub "+p.hub(s.ID, h))
	}
	s.Hubs, s.Allocation = nil, registration.AllocationSettings{}
	return show(s) + strings.Join(parts, "; ")
}

func (p *player) line(scope string, l registration.AuditLine) string {
	return "at " + p.place(scope).name(l.Seq) + show(l.Audit)
}

// device shows a snapshot.
func (p *player) device(scope string, d registration.Device) string {
	parts := []string{fmt.Sprintf("generation %d", d.Generation)}
	if d.Enrollment != nil {
		parts = append(parts, "enrollment "+p.enrollment(scope, *d.Enrollment))
	}
	if d.Operation != nil { // before the registration, which has the same revision or a later one
		parts = append(parts, "operation "+p.operation(scope, *d.Operation))
	}
	if d.Registration != nil {
		parts = append(parts, "registration "+p.registration(scope, *d.Registration))
	}
	return strings.Join(append(parts, "groups r"+p.revision(scope).name(d.GroupsRevision)), "; ")
}

// list shows rows one after the other.
func list[T any](rows []T, err error, p *player, show func(T) string) string {
	if err != nil {
		return p.failed(err)
	}
	parts := make([]string, len(rows))
	for i, row := range rows {
		parts[i] = show(row)
	}
	return fmt.Sprintf("%d rows %s", len(rows), strings.Join(parts, ", "))
}
